use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use tokio::sync::mpsc;

use super::{
    super::protocol::{Reply, Request},
    tail::tail,
    *,
};

const PATIENCE: Duration = Duration::from_secs(20);
const LIST: &[u8] = b"{\"cmd\":\"list\",\"v\":1}\n";

/// A served socket. `List` is answered at once, `Status` with something large, `Reload` never,
/// and `Tail` by the packets `0`, `1`, … as fast as they go, or none for the target `quiet`.
struct Served {
    folder: tempfile::TempDir,
    refusals: Arc<Refusals>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn start(group: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
        let listening =
            bind(SocketUse::Control, &folder.path().join("sock"), group).expect("bound");
        let refusals = Arc::new(Refusals::default());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let counters = Arc::clone(&refusals);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runs");
            runtime.block_on(async {
                let (sender, mut asked) = mpsc::channel(16);
                let listener = tokio::net::UnixListener::from_std(listening.socket).expect("fit");
                tokio::spawn(serve(listener, listening.access, sender, counters));
                let answers = async {
                    let mut kept = Vec::new();
                    while let Some(asked) = asked.recv().await {
                        kept.extend(answer(asked));
                    }
                };
                tokio::select! {
                    () = answers => {}
                    _ = stopped => {}
                }
            });
        });
        Self { folder, refusals, stop: Some(stop), thread: Some(thread) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Whether somebody else is answered at once.
    fn is_lively(&self) -> bool {
        let begin = Instant::now();
        let reply = ask(&self.path(), &Request::List).expect("an answer");
        reply.ok && begin.elapsed() < Duration::from_secs(2)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.stop.take().expect("once").send(());
        self.thread.take().expect("once").join().expect("no panic");
    }
}

/// What must be kept, for no answer to be given.
fn answer(Asked { request, answer, by }: Asked) -> Option<tokio::sync::oneshot::Sender<Answer>> {
    match request {
        Request::Reload => return Some(answer),
        Request::Status => {
            let _ = answer.send(Reply::told(vec!["x".repeat(1 << 20)]).into());
        }
        Request::Tail { target } => {
            let (mut feed, stream) = tail();
            let _ = answer.send(stream);
            tokio::spawn(async move {
                let mut number = 0u64;
                while !feed.is_over() {
                    if target != "quiet" {
                        feed.offer(number.to_string().as_bytes());
                        number += 1;
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        _ => {
            let _ = answer.send(Reply::told(vec![by.uid.to_string()]).into());
        }
    }
    None
}

fn reply(stream: &mut UnixStream) -> Reply {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

fn error(stream: &mut UnixStream) -> String {
    reply(stream).error.expect("refused")
}

/// Until the other end hangs up; what it said before.
fn rest(mut stream: &UnixStream) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => said,
    }
}

#[test]
fn the_file_belongs_to_root_and_the_group_from_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let groups = folder.path().join("group");
    std::fs::write(&groups, "ops:x:4711:\n").expect("written");
    let path = folder.path().join("sock");
    let is_root = rustix::process::geteuid().is_root();
    for (group, mode, gid, access) in [
        (None, 0o600, 0, Access::Root),
        (Some("ops"), 0o660, 4711, Access::Group(4711)),
        (Some("4712"), 0o660, 4712, Access::Group(4712)),
        (Some("nobody-knows"), 0o600, 0, Access::Root),
    ] {
        if group.is_some() && !is_root {
            println!("SKIPPED: not root");
            continue;
        }
        let listening = bind_with(SocketUse::Control, &path, group, &groups).expect("bound");
        assert_eq!(listening.access, access);
        let file = std::fs::metadata(&path).expect("the socket");
        assert_eq!(file.mode() & 0o777, mode, "{group:?}");
        assert!(!is_root || file.gid() == gid, "{group:?}");
        assert!(matches!(
            bind_with(SocketUse::Control, &path, group, &groups),
            Err(SocketError::InUse(..))
        ));
    }
    // Before its mode is set, it is its owner's alone, whatever the umask.
    let bare = folder.path().join("bare");
    let _listener = listen(&bare).expect("listening");
    assert_eq!(std::fs::metadata(&bare).expect("the socket").mode() & 0o177, 0);
    assert!(matches!(bind(SocketUse::Control, &groups, None), Err(SocketError::NoSocket(..))));
}

#[test]
fn nonsense_is_refused_counted_and_ends_nothing() {
    let served = Served::start(None);
    let mut stream = served.connect();
    let cases: [(&[u8], &str); 9] = [
        (b"\x00\xff garbage\n", "not understood"),
        (b"\n", "not understood"),
        (b"[1,2]\n", "not understood"),
        (b"{\"cmd\":\"list\"}\n", "not understood"),
        (b"{\"cmd\":\"list\",\"v\":2}\n", "version 1"),
        (b"{\"cmd\":\"list\",\"v\":\"1\"}\n", "not understood"),
        (b"{\"cmd\":\"enable\",\"v\":1,\"target\":7}\n", "not understood"),
        (b"{\"cmd\":\"enable\",\"v\":1,\"target\":\"a\",\"more\":1}\n", "not understood"),
        (b"{\"cmd\":\"loglevel\",\"v\":1,\"level\":\"info\",\"for_s\":-1}\n", "not understood"),
    ];
    for (request, words) in cases {
        stream.write_all(request).expect("written");
        let error = error(&mut stream);
        assert!(error.contains(words), "{}: {error}", request.escape_ascii());
    }
    stream.write_all(LIST).expect("written");
    assert!(reply(&mut stream).ok);
    let nested = [vec![b'['; REQUEST_MAX_BYTES - 1], b"\n".to_vec()].concat();
    stream.write_all(&nested).expect("written");
    assert!(error(&mut stream).contains("not understood"));
    let refused = served.refusals.read();
    assert_eq!((refused.malformed, refused.not_allowed), (cases.len() as u64 + 1, 0));
}

#[test]
fn a_request_has_one_line_of_bounded_length() {
    let served = Served::start(None);
    // The longest one that is taken.
    let mut stream = served.connect();
    let text = "x".repeat(REQUEST_MAX_BYTES - "{\"cmd\":\"enable\",\"v\":1,\"x\":\"\"}\n".len());
    let line = format!("{{\"cmd\":\"enable\",\"v\":1,\"x\":\"{text}\"}}\n");
    assert_eq!(line.len(), REQUEST_MAX_BYTES);
    stream.write_all(line.as_bytes()).expect("written");
    assert!(error(&mut stream).contains("not understood"), "parsed and refused");
    // One byte more, and very much more.
    for length in [REQUEST_MAX_BYTES, 10 << 20] {
        let mut stream = served.connect();
        // It may hang up before it has read everything.
        let _ = stream.write_all(&[vec![b'x'; length], b"\n".to_vec()].concat());
        assert!(error(&mut stream).contains("at most 65536 bytes"));
        assert!(rest(&stream).is_empty());
    }
    // Half a line, and its end.
    let mut stream = served.connect();
    stream.write_all(&LIST[..10]).expect("written");
    stream.shutdown(std::net::Shutdown::Write).expect("shut down");
    assert!(error(&mut stream).contains("one line"));
    assert_eq!(served.refusals.read().malformed, 4);
    let request = Request::Send { targets: Vec::new(), all: true, text };
    assert!(matches!(ask(&served.path(), &request), Err(SocketError::TooLong { .. })));
}

#[test]
fn half_a_line_costs_a_place_for_a_while_only() {
    let served = Served::start(None);
    let mut stream = served.connect();
    stream.write_all(&LIST[..10]).expect("written");
    assert!(served.is_lively());
    let begin = Instant::now();
    assert!(rest(&stream).is_empty());
    assert!(begin.elapsed() > Duration::from_secs(3) && begin.elapsed() < PATIENCE);
}

#[test]
fn a_thousand_connections_are_told_and_let_go() {
    let served = Served::start(None);
    let idle: Vec<_> = (0..1_000).map(|_| served.connect()).collect();
    let mut turned_away = 0;
    for stream in &idle {
        let said = rest(stream);
        if !said.is_empty() {
            let reply: Reply = serde_json::from_slice(&said).expect("a reply");
            assert!(reply.error.expect("refused").contains("too many clients"));
            turned_away += 1;
        }
    }
    assert!(turned_away >= 900, "{turned_away}");
    assert_eq!(served.refusals.read().too_many_clients, turned_away);
    assert!(served.is_lively());
}

#[test]
fn pipelined_requests_are_answered_in_order_and_a_deaf_client_is_let_go() {
    let served = Served::start(None);
    let mut stream = served.connect();
    stream.write_all(&[LIST, b"nonsense\n", LIST].concat().repeat(20)).expect("written");
    let mut reader = BufReader::new(&stream);
    for number in 0..60 {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        assert_eq!(line.starts_with("{\"ok\":true"), number % 3 != 1, "{number}: {line}");
    }
    // A mebibyte each, which does not fit the socket, and is never read.
    let deaf: Vec<_> = (0..8).map(|_| served.connect()).collect();
    for mut stream in &deaf {
        stream.write_all(&b"{\"cmd\":\"status\",\"v\":1}\n".repeat(3)).expect("written");
    }
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(6) {
        assert!(served.is_lively());
        std::thread::sleep(Duration::from_millis(100));
    }
    for stream in &deaf {
        let said = rest(stream);
        assert!(said.len() < 1 << 20, "hung up within the first reply: {}", said.len());
    }
}

#[test]
fn a_request_that_is_never_answered_holds_up_no_other() {
    let served = Served::start(None);
    let mut stream = served.connect();
    stream.write_all(b"{\"cmd\":\"reload\",\"v\":1}\n").expect("written");
    for _ in 0..20 {
        assert!(served.is_lively());
    }
}

#[test]
fn a_tail_goes_on_until_the_client_goes_away_and_a_slow_one_loses_packets() {
    let served = Served::start(None);
    let request = Request::Tail { target: "fleet".to_owned() };
    let mut replies = Replies::open(&served.path(), &request).expect("asked");
    assert_eq!(replies.read().expect("a reply"), Some(Reply::done()));
    // It reads nothing, and nobody waits for it.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(1) {
        assert!(served.is_lively());
    }
    let (mut next, mut left_out) = (0u64, 0u64);
    while left_out == 0 || next % 1000 != 0 {
        let reply = replies.read().expect("understood").expect("it goes on");
        let missing = reply.left_out.unwrap_or(0);
        next += missing;
        left_out += missing;
        assert_eq!(reply.packet, Some(next.to_string()), "all that is missing is counted");
        next += 1;
    }
    drop(replies);
    // Its place is free again, and there are as many as there are.
    let open = || {
        let mut replies =
            Replies::open(&served.path(), &Request::Tail { target: "quiet".to_owned() })
                .expect("asked");
        let first = replies.read().expect("understood").expect("a reply");
        (replies, first)
    };
    let begin = Instant::now();
    let mut tails: Vec<_> = Vec::new();
    while tails.len() < 8 {
        let (replies, first) = open();
        if first.ok {
            tails.push(replies);
        }
        assert!(begin.elapsed() < PATIENCE, "the place of the one that went away is not free");
    }
    let before = served.refusals.read().too_many_clients;
    let (_, ninth) = open();
    assert!(ninth.error.expect("refused").contains("8 tails"));
    assert_eq!(served.refusals.read().too_many_clients, before + 1);
    assert!(served.is_lively());
}

/// What a thread of that user and those groups is told (credentials are a thread's own, and the
/// kernel keeps those of `connect`).
fn asked_as(path: &Path, uid: u32, groups: &[u32], request: Request) -> Result<Reply, SocketError> {
    use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let groups: Vec<_> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
            set_thread_groups(&groups[1..]).expect("supplementary groups");
            set_thread_res_gid(groups[0], groups[0], groups[0]).expect("a group");
            let uid = Uid::from_raw(uid);
            set_thread_res_uid(uid, uid, uid).expect("a user");
            ask(path, &request)
        });
        asking.join().expect("no panic")
    })
}

#[test]
fn the_group_may_ask_what_is_for_it_and_nobody_else_anything() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: not root");
        return;
    }
    const GROUP: u32 = 4711;
    const USER: u32 = 4712;
    let served = Served::start(Some(&GROUP.to_string()));
    let path = served.path();
    // By the primary group and by a supplementary one.
    for groups in [&[GROUP][..], &[USER, 4713, GROUP]] {
        let reply = asked_as(&path, USER, groups, Request::List).expect("an answer");
        assert_eq!(reply, Reply::told(vec![USER.to_string()]));
    }
    let target = || "x".to_owned();
    let for_root = [
        Request::Disable { target: target() },
        Request::Tail { target: target() },
        Request::Set { target: target(), settings: String::new() },
        Request::Resolve { target: None },
        Request::Reload,
        Request::Dump,
    ];
    for (number, request) in (1..).zip(for_root) {
        let reply = asked_as(&path, USER, &[GROUP], request).expect("an answer");
        assert!(reply.error.expect("refused").contains("own user may do that"));
        assert_eq!(served.refusals.read().not_allowed, number);
    }
    // Neither root nor in the group: the kernel refuses.
    let denied = asked_as(&path, USER, &[USER], Request::List);
    assert!(matches!(denied, Err(SocketError::Denied(_))), "{denied:?}");
    // Root needs no group.
    assert!(asked_as(&path, 0, &[USER], Request::List).expect("an answer").ok);
    // A file that somebody has opened for all gets nobody further.
    let roots = Served::start(None);
    std::fs::set_permissions(roots.path(), PermissionsExt::from_mode(0o666)).expect("a mode");
    let reply = asked_as(&roots.path(), USER, &[GROUP], Request::List).expect("an answer");
    assert!(reply.error.expect("refused").contains("own user may use this control socket"));
    assert_eq!(roots.refusals.read().not_allowed, 1);
}

#[test]
fn the_group_cannot_keep_root_out() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: not root");
        return;
    }
    use rustix::thread::{Gid, Uid, set_thread_res_gid, set_thread_res_uid};
    let served = Served::start(Some("4711"));
    let path = served.path();
    let idle = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let (gid, uid) = (Gid::from_raw(4711), Uid::from_raw(4712));
            set_thread_res_gid(gid, gid, gid).expect("a group");
            set_thread_res_uid(uid, uid, uid).expect("a user");
            let connect = |_| UnixStream::connect(&path).expect("connected");
            (0..100).map(connect).collect::<Vec<_>>()
        });
        connecting.join().expect("no panic")
    });
    assert!(served.is_lively());
    assert!(served.refusals.read().too_many_clients >= 80);
    drop(idle);
}

fn requests() -> impl Strategy<Value = Request> {
    let text = || any::<String>();
    prop_oneof![
        Just(Request::Status),
        Just(Request::List),
        Just(Request::Reload),
        Just(Request::Dump),
        (proptest::collection::vec(text(), 0..3), any::<bool>(), text())
            .prop_map(|(targets, all, text)| Request::Send { targets, all, text }),
        text().prop_map(|target| Request::Ping { target }),
        text().prop_map(|target| Request::Tail { target }),
        text().prop_map(|target| Request::Enable { target }),
        text().prop_map(|target| Request::Disable { target }),
        text().prop_map(|target| Request::Remove { target }),
        proptest::option::of(text()).prop_map(|target| Request::Resolve { target }),
        (text(), proptest::option::of(text()), any::<u32>())
            .prop_map(|(target, line, last)| Request::FilterExplain { target, line, last }),
        (text(), text()).prop_map(|(target, settings)| Request::Set { target, settings }),
        (text(), text()).prop_map(|(target, settings)| Request::Add { target, settings }),
        (text(), text(), text()).prop_map(|(target, key, value)| Request::UserdataSet {
            target,
            key,
            value
        }),
        (text(), text()).prop_map(|(target, key)| Request::UserdataUnset { target, key }),
        (text(), proptest::option::of(any::<u64>()))
            .prop_map(|(level, for_s)| Request::Loglevel { level, for_s }),
    ]
}

proptest! {
    #[test]
    fn a_request_is_one_line_that_is_read_back(request in requests()) {
        let line = request.to_line().expect("JSON");
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(Request::parse(line.as_bytes()), Ok(request));
    }

    #[test]
    fn a_reply_is_one_line_that_is_read_back(
        ok in any::<bool>(),
        error in proptest::option::of(any::<String>()),
        lines in proptest::collection::vec(any::<String>(), 0..3),
        packet in proptest::option::of(any::<String>()),
        left_out in proptest::option::of(any::<u64>()),
    ) {
        let reply = Reply { ok, error, status: None, lines, packet, left_out };
        let line = serde_json::to_string(&reply).expect("JSON");
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(serde_json::from_str::<Reply>(&line).expect("a reply"), reply);
    }

    #[test]
    fn no_bytes_are_more_than_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(request) = Request::parse(&bytes) {
            prop_assert!(request.to_line().is_ok());
        }
    }
}
