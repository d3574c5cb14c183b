//! Where metrics are served, as the configuration writes it. Pure text.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    MetricsAddress,
    kind::{METRICS_FORMS, SOCKET_PATH_MAX_BYTES},
    table::Table,
};

/// Begins the path of a Unix socket.
const UNIX: &str = "unix:";

/// Reads `metrics` of `[agent]`.
pub(super) fn metrics(table: &mut Table<'_, '_>) -> Option<MetricsAddress> {
    let (text, span) = table.string("metrics")?;
    let address = match address(text) {
        Ok(address) => return Some(address),
        Err(Refusal::NotUnderstood) => {
            let help = format!("{METRICS_FORMS}; without the key nothing is served");
            table.problem(span, format!("`metrics` does not understand {text:?}"), help);
            return None;
        }
        Err(Refusal::Others(address)) => address,
    };
    let message =
        format!("`metrics` would show the agent to other hosts: {address} is no loopback address");
    let help = format!(
        "what is served is not encrypted and asks for no password; use \"127.0.0.1:{port}\" or \
         \"{UNIX}/run/netconsole-agent/metrics.sock\", and let a proxy that authenticates pass it on",
        port = address.port()
    );
    table.problem(span, message, help);
    None
}

enum Refusal {
    NotUnderstood,
    /// Other hosts could reach it.
    Others(SocketAddr),
}

fn address(text: &str) -> Result<MetricsAddress, Refusal> {
    if let Some(path) = text.strip_prefix(UNIX) {
        let fits = path.len() <= SOCKET_PATH_MAX_BYTES && !path.contains('\0');
        let path = PathBuf::from(path);
        let usable = fits && path.is_absolute() && path.file_name().is_some();
        return if usable { Ok(MetricsAddress::Unix(path)) } else { Err(Refusal::NotUnderstood) };
    }
    let address: SocketAddr = text.parse().map_err(|_| Refusal::NotUnderstood)?;
    match address {
        _ if address.port() == 0 => Err(Refusal::NotUnderstood),
        _ if address.ip().to_canonical().is_loopback() => Ok(MetricsAddress::Tcp(address)),
        _ => Err(Refusal::Others(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn read(value: &str) -> Result<Option<MetricsAddress>, String> {
        let text = format!("[agent]\nmetrics = {value:?}\n[target.x]\nremote = \"192.0.2.1\"\n");
        parse(&text, "agent.toml").map(|config| config.agent.metrics).map_err(|e| e.to_string())
    }

    #[test]
    fn loopback_addresses_and_unix_sockets_are_taken() {
        for text in ["127.0.0.1:9774", "127.3.2.1:1", "[::1]:9774", "[::ffff:127.0.0.1]:9774"] {
            let address = text.parse().unwrap();
            assert_eq!(read(text).unwrap(), Some(MetricsAddress::Tcp(address)), "{text}");
        }
        let path = "/run/netconsole-agent/metrics.sock";
        let address = MetricsAddress::Unix(path.into());
        assert_eq!(read(&format!("unix:{path}")).unwrap(), Some(address));
    }

    #[test]
    fn what_others_could_reach_is_refused_with_the_remedy() {
        for text in ["0.0.0.0:9774", "192.0.2.1:9774", "[::]:9774", "[2001:db8::1]:9774"] {
            let error = read(text).unwrap_err();
            for words in ["agent.toml:2:11", "no loopback address", "use \"127.0.0.1:9774\""] {
                assert!(error.contains(words), "{text}: {error}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let long = format!("unix:/{}", "x".repeat(200));
        for text in [
            "",
            "9774",
            ":9774",
            "localhost:9774",
            "127.0.0.1",
            "127.0.0.1:0",
            "unix:",
            "unix:x",
            "unix:/",
            &long,
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains("does not understand"), "{text}: {error}");
        }
    }
}
