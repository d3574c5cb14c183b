//! The page of metrics of a running agent, asked for as Prometheus does (HTTP/1.1, RFC 9112).

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use crate::config::MetricsAddress;

const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of a page: the metrics of some thousand targets.
const PAGE_MAX_BYTES: u64 = 16 << 20;
const REQUEST: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The page.
pub(super) fn metrics(address: Option<MetricsAddress>) -> Result<String, String> {
    let answer = match address {
        None => {
            return Err(
                "the configuration has no `metrics`; status.json has the counters".to_owned()
            );
        }
        Some(MetricsAddress::Tcp(address)) => {
            let stream = TcpStream::connect_timeout(&address, PATIENCE);
            let stream = stream.and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE)).map(|()| stream)
            });
            stream.and_then(ask).map_err(|error| format!("no answer from {address}: {error}"))
        }
        Some(MetricsAddress::Unix(path)) => {
            let stream = UnixStream::connect(&path).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE)).map(|()| stream)
            });
            stream
                .and_then(ask)
                .map_err(|error| format!("no answer from {}: {error}", path.display()))
        }
    };
    page(&answer?)
}

fn ask(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(REQUEST.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(PAGE_MAX_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What is behind the headers of an answer that is good.
fn page(answer: &str) -> Result<String, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is not HTTP")?;
    let first = head.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) == Some("200") {
        Ok(body.to_owned())
    } else {
        Err(format!("the answer is {first}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_good_answer_is_a_page() {
        assert_eq!(page("HTTP/1.1 200 OK\r\na: b\r\n\r\nx 1\n"), Ok("x 1\n".to_owned()));
        let error = page("HTTP/1.1 503 Service Unavailable\r\n\r\nno").expect_err("no page");
        assert!(error.contains("503"), "{error}");
        assert!(page("").is_err());
    }
}
