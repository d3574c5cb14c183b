//! Which records of those logged before the start are sent, and to whom. Pure.

/// What is sent of the records that were logged before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// What no earlier run of this boot has sent; at the first start of a boot, all.
    Resume,
    /// All that the kernel still has, at every start.
    Boot,
    /// Nothing.
    None,
}

impl Replay {
    /// The name used in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Boot => "boot",
            Self::None => "none",
        }
    }

    /// The first seq for a target that has come as far as `checkpoint` in this boot.
    /// The kernel has the records from `oldest_seq` on; those from `live_seq` on are to come.
    #[must_use]
    pub fn first_seq(self, checkpoint: Option<u64>, oldest_seq: u64, live_seq: u64) -> u64 {
        let first_seq = match self {
            Self::Resume => checkpoint.unwrap_or(oldest_seq),
            Self::Boot => oldest_seq,
            Self::None => live_seq,
        };
        // No checkpoint of this boot lies in the future; were there one, nothing would be sent.
        first_seq.min(live_seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_begins_where_it_ended() {
        assert_eq!(Replay::Resume.first_seq(Some(120), 100, 200), 120);
        // What the kernel has overwritten since is told lost.
        assert_eq!(Replay::Resume.first_seq(Some(50), 100, 200), 50);
        assert_eq!(Replay::Resume.first_seq(None, 100, 200), 100);
        assert_eq!(Replay::Resume.first_seq(Some(300), 100, 200), 200);
        assert_eq!(Replay::Boot.first_seq(Some(120), 100, 200), 100);
        assert_eq!(Replay::None.first_seq(Some(120), 100, 200), 200);
    }
}
