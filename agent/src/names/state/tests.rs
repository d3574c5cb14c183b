//! The state by tables, and its promises over any order of events.

use proptest::prelude::*;

use super::*;

const A: &str = "192.0.2.1";
const B: &str = "192.0.2.2";
const C: &str = "2001:db8::1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn found(addresses: &[&str], valid_s: u64) -> Result<Resolved, NameError> {
    let addresses = addresses.iter().map(|text| ip(text)).collect();
    Ok(Resolved { addresses, valid_for: Duration::from_secs(valid_s), unanswered: None })
}

fn failed() -> Result<Resolved, NameError> {
    Err(NameError::Timeout { host: "fleet".to_owned(), servers: "192.0.2.53".to_owned() })
}

fn before(address: &str) -> NameChange {
    NameChange::Address { before: Some(ip(address)) }
}

#[test]
fn answers_by_the_table() {
    let first = NameChange::Address { before: None };
    let (same, others, lost) = (NameChange::Unchanged, NameChange::Others, NameChange::Failed);
    // (answer, change, addresses afterwards, seconds to the next look-up)
    let table: [(_, _, &[&str], u64); 17] = [
        (failed(), lost, &[], 1),
        (failed(), lost, &[], 2),
        (failed(), lost, &[], 4),
        (failed(), lost, &[], 8),
        (failed(), lost, &[], 16),
        (failed(), lost, &[], 30),
        (failed(), lost, &[], 30),
        (found(&[A, B], 60), first, &[A, B], 60),
        // The order turns, and nothing changes.
        (found(&[B, A], 60), same, &[A, B], 60),
        // A TTL that is too short or too long.
        (found(&[A, B], 0), same, &[A, B], 30),
        (found(&[A, B], 1 << 40), same, &[A, B], 3600),
        // The one in use stays for as long as it is in the answer.
        (found(&[C, B, A], 60), others, &[A, C, B], 60),
        (failed(), lost, &[A, C, B], 30),
        (failed(), lost, &[A, C, B], 30),
        (found(&[A, C, B], 60), same, &[A, C, B], 60),
        // It is gone: the first of the new answer.
        (found(&[B, C], 60), before(A), &[B, C], 60),
        (found(&[], 60), lost, &[B, C], 30),
    ];
    let mut now = Instant::now();
    let mut state = NameState::new("fleet", None, now);
    assert!(state.due(now));
    for (step, (answer, change, addresses, next_s)) in table.into_iter().enumerate() {
        now = now.max(state.next_at());
        state.asked(now);
        assert!(!state.due(now), "step {step}");
        assert_eq!(state.answer(now, answer), change, "step {step}");
        let wanted: Vec<IpAddr> = addresses.iter().map(|text| ip(text)).collect();
        assert_eq!(state.addresses(), wanted, "step {step}");
        assert_eq!(state.next_at(), now + Duration::from_secs(next_s), "step {step}");
    }
}

#[test]
fn a_failure_is_told_with_its_beginning() {
    let start = Instant::now();
    let mut state = NameState::new("fleet", None, start);
    state.answer(start, found(&[A], 60));
    assert_eq!(state.failure(), None);
    for times in 1..=3 {
        state.answer(start + Duration::from_secs(30) * times, failed());
        let failure = state.failure().unwrap();
        assert_eq!((failure.since, failure.times), (start + Duration::from_secs(30), times));
    }
    state.answer(start, found(&[A], 60));
    assert_eq!(state.failure(), None);
}

#[test]
fn the_caller_may_take_the_next_address() {
    let now = Instant::now();
    let mut state = NameState::new("fleet", None, now);
    state.answer(now, found(&[A, B, C], 60));
    state.use_address(ip(C));
    assert_eq!(state.addresses(), [ip(C), ip(A), ip(B)]);
    state.use_address(ip("192.0.2.99"));
    assert_eq!(state.address(), Some(ip(C)));
    // And keeps it.
    assert_eq!(state.answer(now, found(&[A, B, C], 60)), NameChange::Unchanged);
    assert_eq!(state.address(), Some(ip(C)));
}

#[test]
fn half_an_answer_takes_nothing_away() {
    let now = Instant::now();
    let mut state = NameState::new("fleet", None, now);
    state.answer(now, found(&[C], 60));
    let half = |unanswered| {
        found(&[A], 60).map(|resolved| Resolved { unanswered: Some(unanswered), ..resolved })
    };
    assert_eq!(state.answer(now, half(IpVersion::V6)), NameChange::Others);
    assert_eq!(state.addresses(), [ip(C), ip(A)]);
    assert_eq!(state.answer(now, half(IpVersion::V4)), before(C));
    assert_eq!(state.addresses(), [ip(A)]);
}

#[test]
fn the_version_of_the_source_counts() {
    let now = Instant::now();
    let mut state = NameState::new("fleet", Some(IpVersion::V6), now);
    assert_eq!(state.answer(now, found(&[A, B], 60)), NameChange::Failed);
    let error = state.failure().unwrap().error.to_string();
    assert!(error.contains("fleet has no IPv6 address"), "{error}");
    state.answer(now, found(&[A, C, B], 60));
    assert_eq!(state.addresses(), [ip(C)]);
}

#[test]
fn hurrying_has_limits() {
    let s = Duration::from_secs;
    let start = Instant::now();
    let mut state = NameState::new("fleet", None, start);
    state.asked(start);
    state.answer(start, found(&[A], 3600));
    state.hurry(start);
    assert_eq!(state.next_at(), start + s(1));
    state.asked(start + s(1));
    state.hurry(start + s(2));
    assert_eq!(state.next_at(), start + s(6), "a look-up runs");
    // It never puts anything off.
    state.answer(start + s(2), failed());
    state.hurry(start + s(10));
    assert_eq!(state.next_at(), start + s(10));
    state.hurry(start + s(20));
    assert_eq!(state.next_at(), start + s(10));
}

#[derive(Clone, Debug)]
enum Event {
    Wait(Duration),
    Asked,
    Hurry,
    Answer(Result<Resolved, NameError>),
    Use(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let addresses = || prop::sample::subsequence(vec![A, B, C], 0..=3).prop_shuffle();
    let version = prop_oneof![Just(None), Just(Some(IpVersion::V4)), Just(Some(IpVersion::V6))];
    let answer =
        (addresses(), 0u64..1 << 33, version).prop_map(|(addresses, valid_s, unanswered)| {
            let answer = found(&addresses, valid_s);
            Event::Answer(answer.map(|resolved| Resolved { unanswered, ..resolved }))
        });
    let event = prop_oneof![
        (0u64..7_200_000).prop_map(|ms| Event::Wait(Duration::from_millis(ms))),
        Just(Event::Asked),
        Just(Event::Hurry),
        answer,
        Just(Event::Answer(failed())),
        (0usize..4).prop_map(Event::Use),
    ];
    prop::collection::vec(event, 0..60)
}

proptest! {
    #[test]
    fn it_is_always_asked_again_in_time_and_keeps_what_was_good(events in events()) {
        let mut now = Instant::now();
        let mut state = NameState::new("fleet", None, now);
        for event in events {
            let old = state.clone();
            match event.clone() {
                Event::Wait(time) => now += time,
                Event::Asked => state.asked(now),
                Event::Hurry => {
                    state.hurry(now);
                    prop_assert!(state.next_at() <= old.next_at());
                    prop_assert!(state.next_at() >= now.min(old.next_at()));
                }
                Event::Use(at) => {
                    if let Some(address) = old.addresses().get(at) {
                        state.use_address(*address);
                        prop_assert_eq!(state.address(), Some(*address));
                    }
                    prop_assert_eq!(state.addresses().len(), old.addresses().len());
                }
                Event::Answer(answer) => {
                    let given = answer.clone().map(|resolved| resolved.addresses);
                    let change = state.answer(now, answer);
                    let wait = state.next_at() - now;
                    let known = !state.addresses().is_empty();
                    if change == NameChange::Failed {
                        prop_assert!(wait <= RETRY_MAX && wait >= RETRY_FIRST);
                        prop_assert!(!known || wait == RETRY_MAX);
                        prop_assert_eq!(state.addresses(), old.addresses());
                    } else {
                        prop_assert!((VALID_MIN..=VALID_MAX).contains(&wait));
                        prop_assert!(known && state.failure().is_none());
                        let given = given.unwrap();
                        if let Some(used) = old.address().filter(|used| given.contains(used)) {
                            prop_assert_eq!(state.address(), Some(used));
                        }
                        for address in &given {
                            prop_assert!(state.addresses().contains(address));
                        }
                    }
                    let moved = matches!(change, NameChange::Address { .. });
                    prop_assert_eq!(moved, state.address() != old.address());
                }
            }
            // What was good once is never without a successor.
            prop_assert!(old.addresses().is_empty() || !state.addresses().is_empty());
            if !matches!(event, Event::Wait(_)) {
                prop_assert!(state.next_at() <= now.max(old.next_at()).max(now + VALID_MAX));
            }
        }
    }
}
