//! An agent between two namespaces, and a mailbox at the receiver's port.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use agent_tests::{
    agent::Agent,
    kmsg::{Unlimited, mark, write},
    netns::{Pair, root_or_skip},
};

/// The receiver's port.
pub(crate) const PORT: u16 = 6666;
/// A target without anything special.
pub(crate) const PEER: &str = "[target.peer]\nremote = \"192.0.2.2:6666\"\n";
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module's description.
pub(crate) struct Scene {
    pub(crate) agent: Agent,
    mailbox: UdpSocket,
    /// Every datagram since the start, in order of arrival.
    pub(crate) arrived: Vec<String>,
    pub(crate) pair: Pair,
    _unlimited: Unlimited,
}

impl Scene {
    /// Starts an agent with these target tables and waits until `active` of them send; none
    /// if this process must not make namespaces.
    pub(crate) fn start(test: &str, targets: &str, active: usize) -> Option<Self> {
        Self::start_with(test, "", targets, active)
    }

    /// The same with settings of the agent.
    pub(crate) fn start_with(
        test: &str,
        agent_table: &str,
        targets: &str,
        active: usize,
    ) -> Option<Self> {
        if !root_or_skip(test) {
            return None;
        }
        let unlimited = Unlimited::new();
        let pair = Pair::new();
        let mailbox = mailbox(&pair, PORT);
        let agent = Agent::start(&pair.left, agent_table, targets, active);
        Some(Self { agent, mailbox, arrived: Vec::new(), pair, _unlimited: unlimited })
    }

    /// Writes lines of level 6 into the kernel log.
    pub(crate) fn say(&self, lines: &[&str]) {
        let lines: Vec<Vec<u8>> =
            lines.iter().map(|line| format!("<6>{line}\n").into_bytes()).collect();
        write(&lines, 0);
    }

    /// Takes what has come.
    pub(crate) fn collect(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok(length) = self.mailbox.recv(&mut buffer) {
            self.arrived.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }

    /// Waits for a datagram, also an earlier one.
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            self.collect();
            if let Some(found) = self.arrived.iter().find(|datagram| wanted(datagram)) {
                return found.clone();
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{what} did not arrive\n{}{:?}\n{}",
                self.agent.status().to_text(),
                self.arrived.iter().rev().take(20).collect::<Vec<_>>(),
                self.agent.log()
            );
        }
    }

    /// Says a line and waits for its record.
    pub(crate) fn hear(&mut self, line: &str) -> String {
        self.say(&[line]);
        self.wait_for(line, |datagram| datagram.contains(line))
    }

    /// Waits until everything that was said has its fate and has come.
    pub(crate) fn settle(&mut self) {
        let mark = mark();
        self.agent.wait(PATIENCE, |status| {
            let mut sending = status.targets.iter().filter(|target| target.state == "active");
            sending.all(|target| target.account.next_seq - target.account.queued > mark)
        });
        self.collect();
    }

    /// How many datagrams have come that contain this.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.arrived.iter().filter(|datagram| datagram.contains(part)).count()
    }
}

/// A port of the right namespace, at all its addresses.
pub(crate) fn mailbox(pair: &Pair, port: u16) -> UdpSocket {
    let socket = pair.right.run(|| UdpSocket::bind(("::", port)).expect("bind"));
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 256 << 20)
        .expect("a large receive buffer");
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    socket
}
