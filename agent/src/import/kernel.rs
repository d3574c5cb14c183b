//! A target as the kernel's netconsole has it, whichever way it was told.

use std::net::IpAddr;

use crate::{
    config::{DEFAULT_LOCAL_PORT, DEFAULT_REMOTE_PORT},
    frame::{BROADCAST_MAC, MacAddr},
    netconsole::SysdataKey,
};

/// How the kernel was told the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Device {
    /// Not at all: it takes `eth0`.
    Default,
    /// By name.
    Name(String),
    /// By MAC.
    Mac(MacAddr),
    /// It has none at the moment.
    None,
}

/// `struct netconsole_target`, `drivers/net/netconsole.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KernelTarget {
    /// Its directory in configfs.
    pub(super) name: Option<String>,
    pub(super) enabled: bool,
    pub(super) extended: bool,
    pub(super) release: bool,
    pub(super) device: Device,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
    pub(super) local_ip: Option<IpAddr>,
    pub(super) remote_ip: Option<IpAddr>,
    pub(super) remote_mac: MacAddr,
    /// In the kernel's order.
    pub(super) userdata: Vec<(String, String)>,
    pub(super) sysdata: Vec<SysdataKey>,
}

impl Default for KernelTarget {
    /// The defaults of `alloc_and_init`; a target of the parameter is enabled.
    fn default() -> Self {
        Self {
            name: None,
            enabled: true,
            extended: false,
            release: false,
            device: Device::Default,
            local_port: DEFAULT_LOCAL_PORT,
            remote_port: DEFAULT_REMOTE_PORT,
            local_ip: None,
            remote_ip: None,
            remote_mac: BROADCAST_MAC,
            userdata: Vec::new(),
            sysdata: Vec::new(),
        }
    }
}
