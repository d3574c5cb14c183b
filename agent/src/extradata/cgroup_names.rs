//! The table of cgroups that the data path looks ids up in: immutable, without
//! allocation or lock. Who fills it is the business of [`super::cgroup`].

use super::{cgroup::GONE_MAX, cgroup_walk::GROUPS_MAX};
use crate::netconsole::SysdataKey;

/// Longest path and longest workload that are kept, in bytes; the rest would not be sent.
const NAME_MAX_BYTES: usize = SysdataKey::Cgroup.value_max_bytes();

/// Names of cgroups by id; what the data path reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CgroupNames {
    /// Sorted, apart from the names, so that a search touches little memory.
    ids: Box<[u64]>,
    /// In the order of the ids.
    places: Box<[Place]>,
    bytes: Box<[u8]>,
}

/// Where the names of a group lie: the path, and the workload behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    at: u32,
    path_bytes: u8,
    unit_bytes: u8,
}

const _: () = assert!(NAME_MAX_BYTES <= u8::MAX as usize);
const _: () = assert!(2 * NAME_MAX_BYTES * (GROUPS_MAX + GONE_MAX) <= u32::MAX as usize);

impl CgroupNames {
    /// Path and workload of the group (both cut at 199 bytes, the workload empty if
    /// it has none); `None` if it is not known yet.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<(&[u8], &[u8])> {
        let place = self.places.get(self.ids.binary_search(&id).ok()?)?;
        let (path_bytes, unit_bytes) = (place.path_bytes.into(), place.unit_bytes.into());
        let (path, rest) = self.bytes.get(place.at as usize..)?.split_at_checked(path_bytes)?;
        Some((path, rest.get(..unit_bytes)?))
    }

    /// The ids that are known, in ascending order.
    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.ids.iter().copied()
    }

    /// Number of groups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no group is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Collects the names of a table, in any order.
#[derive(Default)]
pub(super) struct Builder {
    places: Vec<(u64, Place)>,
    bytes: Vec<u8>,
}

impl Builder {
    /// Adds a group; names that are too long are cut.
    pub(super) fn push(&mut self, id: u64, path: &[u8], unit: &[u8]) {
        let path = &path[..path.len().min(NAME_MAX_BYTES)];
        let unit = &unit[..unit.len().min(NAME_MAX_BYTES)];
        let place = Place {
            // In their bounds, see above.
            at: self.bytes.len() as u32,
            path_bytes: path.len() as u8,
            unit_bytes: unit.len() as u8,
        };
        self.bytes.extend_from_slice(path);
        self.bytes.extend_from_slice(unit);
        self.places.push((id, place));
    }

    /// Groups so far.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u64> {
        self.places.iter().map(|(id, _)| *id)
    }

    pub(super) fn build(mut self) -> CgroupNames {
        // One that moved into the way of the walk twice has the same name.
        self.places.sort_by_key(|(id, _)| *id);
        self.places.dedup_by_key(|(id, _)| *id);
        let (ids, places): (Vec<_>, Vec<_>) = self.places.into_iter().unzip();
        CgroupNames { ids: ids.into(), places: places.into(), bytes: self.bytes.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_id_and_cut() {
        let long = [b'x'; 300];
        let mut builder = Builder::default();
        for (id, path, unit) in [
            (9, b"/b".as_slice(), b"".as_slice()),
            (1, b"/", b""),
            (7, &long, &long),
            (9, b"/b", b""),
        ] {
            builder.push(id, path, unit);
        }
        let names = builder.build();
        assert_eq!(names.len(), 3);
        assert!(names.ids().eq([1, 7, 9]));
        assert_eq!(names.get(1), Some((b"/".as_slice(), b"".as_slice())));
        assert_eq!(names.get(9), Some((b"/b".as_slice(), b"".as_slice())));
        assert_eq!(names.get(7), Some((&long[..199], &long[..199])));
        assert_eq!(names.get(8), None);
        assert_eq!(CgroupNames::default().get(0), None);
    }
}
