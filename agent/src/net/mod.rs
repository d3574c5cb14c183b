//! stub
use std::net::{IpAddr, SocketAddr}; use std::time::Duration;
use crate::egress::EgressKind;
#[derive(Debug, thiserror::Error)] #[error("x")] pub struct NetError;
#[derive(Debug, thiserror::Error)] #[error("x")] pub struct ResolveError;
#[derive(Debug, thiserror::Error)] #[error("x")] pub struct ChooseError;
#[derive(Debug, Clone)] pub struct NextHop { pub ifindex: u32, pub ifname: String, pub src_mac: [u8;6], pub dst_mac: Option<[u8;6]>, pub local: IpAddr, pub gateway: Option<IpAddr>, pub mtu_bytes: u32 }
pub struct Wanted { pub remote: SocketAddr, pub device: Option<String>, pub local: Option<IpAddr>, pub remote_mac: Option<[u8;6]>, pub patience: Duration }
pub struct Resolver;
impl Resolver { pub fn new() -> Result<Self, NetError> { Ok(Self) } pub async fn resolve(&self, _w: &Wanted) -> Result<NextHop, ResolveError> { Err(ResolveError) } }
pub fn choose_egress(_w: Option<EgressKind>, _h: &NextHop) -> Result<(EgressKind, String), ChooseError> { Err(ChooseError) }
#[derive(Debug)] pub struct NetEvent { pub kind: u8, pub ifindex: Option<u32>, pub name: Option<String> }
pub async fn watch() -> Result<futures_util::stream::Pending<NetEvent>, NetError> { Ok(futures_util::stream::pending()) }
