//! The life of one target, as a pure state machine: (state, event) -> (state, effects).
//!
//! It decides when to look for the way to the receiver, when to open a socket,
//! when the pump may use it and when it is given up. It does none of that itself
//! and knows no clock: the control thread carries the effects out and brings what
//! comes of them back as events. Answers carry the ticket of their question, so one
//! that comes too late is recognised. What a way *is* does not matter here ([`Way`]).

mod machine;

use std::time::Duration;

pub use self::machine::Machine;

/// A way out of the host, as far as the machine looks at it.
pub trait Way: Clone + Eq {
    /// Which socket it needs; equal keys share one.
    type Key: Clone + Eq;
    /// The socket.
    fn key(&self) -> Self::Key;
    /// The next best way, if this one cannot be opened.
    fn fallback(&self) -> Option<Self>;
}

/// Names a socket for ever: numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// Names a question whose answer comes as an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Why a target waits. `kind` is for programs and decisions, `text` for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reason {
    /// What is missing.
    pub kind: WaitKind,
    /// In words, with the remedy.
    pub text: String,
}

/// What a target waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitKind {
    /// The first look.
    Starting,
    /// The device does not exist here.
    NoDevice,
    /// The device is down.
    DeviceDown,
    /// The device has no carrier.
    NoCarrier,
    /// The source address is not usable yet.
    AddressTentative,
    /// There is no source address.
    NoAddress,
    /// No route leads there.
    NoRoute,
    /// Nobody answers for the next hop.
    NeighbourUnresolved,
    /// The receiver's name has no address yet.
    NameUnresolved,
    /// A socket is being opened.
    Opening,
    /// Another socket holds the queue.
    BindBusy,
    /// The socket cannot be opened.
    OpenRefused,
    /// The socket does not send any more.
    SocketDead,
    /// The wanted way out does not fit the route.
    EgressImpossible,
    /// The host could not be asked.
    Unknown,
}

impl WaitKind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Starting,
        Self::NoDevice,
        Self::DeviceDown,
        Self::NoCarrier,
        Self::AddressTentative,
        Self::NoAddress,
        Self::NoRoute,
        Self::NeighbourUnresolved,
        Self::NameUnresolved,
        Self::Opening,
        Self::BindBusy,
        Self::OpenRefused,
        Self::SocketDead,
        Self::EgressImpossible,
        Self::Unknown,
    ];

    /// The name used in `status` and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::NoDevice => "no_device",
            Self::DeviceDown => "device_down",
            Self::NoCarrier => "no_carrier",
            Self::AddressTentative => "address_tentative",
            Self::NoAddress => "no_address",
            Self::NoRoute => "no_route",
            Self::NeighbourUnresolved => "neighbour_unresolved",
            Self::NameUnresolved => "name_unresolved",
            Self::Opening => "opening",
            Self::BindBusy => "bind_busy",
            Self::OpenRefused => "open_refused",
            Self::SocketDead => "socket_dead",
            Self::EgressImpossible => "egress_impossible",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a target is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Switched off by the operator.
    Disabled,
    /// It cannot send; its cursor lags in the record store.
    Waiting(Reason),
    /// It sends.
    Active,
    /// Switched off; what its socket was given may still leave.
    Draining,
}

impl State {
    /// The names of all states.
    pub const NAMES: [&'static str; 4] = ["disabled", "waiting", "active", "draining"];

    /// The name used in `status`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Waiting(_) => "waiting",
            Self::Active => "active",
            Self::Draining => "draining",
        }
    }
}

/// What a timer is for. Arming one again replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Look again, because there was no way.
    Retry,
    /// Look again, to be sure.
    Recheck,
    /// Try the better way out again.
    Upgrade,
    /// Stop waiting for what is in flight.
    Drain,
}

/// What happens to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<W> {
    /// The operator switches it on.
    Enable,
    /// The operator switches it off.
    Disable,
    /// Something in the network changed.
    Changed,
    /// The device in use, or its link, is lost.
    Lost(Reason),
    /// The answer to [`Effect::Look`].
    Looked(Ticket, Result<W, Reason>),
    /// [`Effect::Open`] succeeded; the socket is claimed for this target.
    Opened(Ticket, SocketId),
    /// [`Effect::Open`] failed.
    OpenFailed(Ticket, Reason),
    /// A socket will never send again.
    Dead(SocketId, Reason),
    /// The socket in use does not send although it should.
    Stuck(Reason),
    /// A timer ran out.
    Timer(Timer),
    /// Nothing of this target is in flight any more.
    Drained,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<W> {
    /// Look for the way. An earlier look need not be finished.
    Look(Ticket),
    /// Claim the socket that a way needs, opening it where needed.
    Open(Ticket, W),
    /// Let the pump send this way.
    Bind(SocketId, W),
    /// Let the pump send no more; what it handed to the socket may leave.
    Unbind,
    /// Give up the claim on a socket. The last claim closes it.
    Release(SocketId),
    /// Start a timer, or start it over.
    Arm(Timer, Duration),
    /// Stop a timer.
    Disarm(Timer),
}

#[cfg(test)]
mod tests;
