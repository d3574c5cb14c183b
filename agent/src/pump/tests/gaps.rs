//! What the receiver is told of what is missing, and how far the checkpoint may go.

use super::*;

/// First and last seq of a line about missing records.
pub(super) fn told(payload: &[u8]) -> (u64, u64) {
    let text = std::str::from_utf8(payload).unwrap();
    let (_, seqs) = text.split_once(" lost, seq ").unwrap();
    let (first, rest) = seqs.split_once(" to ").unwrap();
    let (last, _) = rest.split_once(':').unwrap();
    (first.parse().unwrap(), last.parse().unwrap())
}

fn notices(handle: &MemoryHandle) -> Vec<String> {
    let all = handle.take_sent().into_iter().map(|(_, payload)| payload);
    let notices = all.filter(|payload| payload.starts_with(NOTICE));
    notices.map(|payload| String::from_utf8(payload).unwrap()).collect()
}

/// A line that is told again is no lost message, however often; one that cannot go at all is.
#[test]
fn a_line_about_missing_records_is_lost_only_if_it_is_not_told_again() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], LOTS);
    let first = control.install(0, 64);
    control.bind(0, 0);
    pump.store.missing(0, 3, MissingReason::NotCaptured);
    pump.store_record(4, 6);
    let mut now_ns = 1;
    let mut rounds = |pump: &mut Pump| {
        for _ in 0..4 {
            now_ns += 10_000_000;
            pump.round(now_ns);
        }
    };
    first.drop_next(3);
    first.set_room(1);
    rounds(&mut pump);
    first.set_room(1);
    rounds(&mut pump);
    assert_eq!(notices(&first), [""; 0], "dropped");
    control.send(Command::Retire { index: 0 });
    rounds(&mut pump);
    assert_eq!((control.ledger(0).messages, control.ledger(0).messages_lost), (0, 0));
    let second = control.install(1, 64);
    control.bind(0, 1);
    rounds(&mut pump);
    let [told] = &notices(&second)[..] else { panic!("not one line") };
    assert!(told.contains("3 records lost, seq 0 to 2: not_captured 3"), "{told}");
    assert_eq!((control.ledger(0).messages, control.ledger(0).messages_lost), (1, 0));

    pump.store.missing(4, 1, MissingReason::NotCaptured);
    second.refuse_next(1);
    rounds(&mut pump);
    assert_eq!(notices(&second), [""; 0], "refused");
    assert_eq!((control.ledger(0).messages, control.ledger(0).messages_lost), (1, 1));
}

/// Everything before the checkpoint has its fate: it was sent, the filter left it out, or its
/// receiver was told that it is lost. Returns how far each target has come.
fn check_checkpoints(world: &World, checkpoints: &Checkpoints, checked: [u64; 2]) -> [u64; 2] {
    [0, 1].map(|target| {
        let Some(next_seq) = checkpoints.peek(&target.to_string()) else { return 0 };
        let Receiver { whole, told, .. } = &world.receivers[target];
        for seq in checked[target]..next_seq {
            let filtered = target == 1 && world.levels[seq as usize].is_some_and(|level| level > 4);
            let told = || told.iter().any(|(first, last)| (*first..=*last).contains(&seq));
            assert!(
                filtered || whole.contains_key(&seq) || told(),
                "target {target}: seq {seq} is before the checkpoint {next_seq}"
            );
        }
        next_seq.max(checked[target])
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// A small store, sockets that come and go: a run that ended at any instant could be followed
    /// by another one.
    #[test]
    fn nothing_without_a_fate_is_before_a_checkpoint(ops in proptest::collection::vec(ops(), 1..300)) {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        let mut world = World::keeping(1 << 16, Some(&checkpoints));
        let mut checked = [0; 2];
        // What a device drops for good, or refuses, is lost without a line.
        for op in ops.iter().filter(|op| !matches!(op, Op::Refuse(..) | Op::Drop(..))) {
            world.act(op);
            checked = check_checkpoints(&world, &checkpoints, checked);
        }
        world.finish();
        for _ in 0..9 {
            world.act(&Op::Pass(20_000_000));
            world.act(&Op::Deliver);
            world.act(&Op::Flush);
            checked = check_checkpoints(&world, &checkpoints, checked);
        }
        prop_assert_eq!(checked, [world.pump.store.next_seq(); 2], "all is sent and told");
    }
}

/// A line that is in a socket is not told yet.
#[test]
fn a_gap_holds_the_checkpoint_until_its_line_has_left() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path()).unwrap();
    let mut world = World::keeping(1 << 20, Some(&checkpoints));
    let at = |world: &World, next_seq: u64| {
        check_checkpoints(world, &checkpoints, [0; 2]);
        assert_eq!(checkpoints.peek("0"), Some(next_seq));
    };
    world.act(&Op::Install(0, 8));
    world.act(&Op::Bind(0, 0));
    world.act(&Op::Record { len_bytes: 9, level: 6 });
    world.act(&Op::Deliver);
    at(&world, 0);
    world.act(&Op::Flush);
    at(&world, 1);
    world.act(&Op::Missing(5));
    world.act(&Op::Record { len_bytes: 9, level: 6 });
    world.act(&Op::Deliver);
    at(&world, 1);
    world.act(&Op::Retire(0));
    world.act(&Op::Deliver);
    at(&world, 1);
    world.act(&Op::Install(1, 8));
    world.act(&Op::Bind(0, 1));
    for _ in 0..2 {
        world.act(&Op::Deliver);
        world.act(&Op::Flush);
    }
    at(&world, 7);
}
