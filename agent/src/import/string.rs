//! The string of the module parameter and boot option `netconsole=`, read as the kernel does.
//!
//! Rules: `alloc_param_target` and `netconsole_parser_cmdline`, `drivers/net/netconsole.c` of
//! Linux 7.x. What they refuse is refused here, with its place; what they take is taken, also
//! where it is odd. Older kernels take less: no device by MAC before 6.15, no `r` before 6.6.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::{
    address,
    kernel::{Device, KernelTarget},
};

/// Longest string, less the NUL (`MAX_PARAM_LENGTH`).
const STRING_MAX_BYTES: usize = 255;
/// The whole of one target, as `Documentation/networking/netconsole.rst` writes it.
const FORM: &str = "a target is [+][r][src-port]@[src-ip]/[dev],[tgt-port]@<tgt-ip>/[tgt-macaddr]";

/// Why the kernel would not take a string, or one of its targets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Where in the text, in bytes.
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: &'static str,
}

impl Refusal {
    fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: FORM }
    }

    /// Shows the place in `text`.
    pub(super) fn render(&self, text: &str) -> String {
        let start = text.floor_char_boundary(self.span.start);
        let span = start..text.floor_char_boundary(self.span.end).max(start);
        let group = Level::ERROR
            .primary_title(self.message.as_str())
            .element(
                Snippet::source(text).path("STRING").annotation(AnnotationKind::Primary.span(span)),
            )
            .element(Level::HELP.message(self.help));
        Renderer::plain().render(&[group]).to_string()
    }
}

/// Reads all targets of a string; each is refused for itself, as by a kernel with
/// `CONFIG_NETCONSOLE_DYNAMIC`.
pub(super) fn targets(text: &str) -> Vec<Result<KernelTarget, Refusal>> {
    let value = value(text);
    if value.len() > STRING_MAX_BYTES {
        let message = format!(
            "the string has {} bytes, and the kernel takes {STRING_MAX_BYTES}",
            value.len()
        );
        let help = "give the targets one by one";
        let span = value.start + STRING_MAX_BYTES..value.end;
        return vec![Err(Refusal { help, ..Refusal::new(span, message) })];
    }
    let mut start = value.start;
    text[value]
        .split(';')
        .map(|one| {
            let fields = Fields { text: one, offset: start, at: 0 };
            start += one.len() + 1;
            target(fields)
        })
        .collect()
}

/// The value alone: without quotes around it, and without the name of the parameter.
fn value(text: &str) -> Range<usize> {
    let mut range = unquoted(text, 0..text.len());
    for name in ["netconsole.netconsole=", "netconsole="] {
        if text[range.clone()].starts_with(name) {
            range = unquoted(text, range.start + name.len()..range.end);
            break;
        }
    }
    range
}

fn unquoted(text: &str, range: Range<usize>) -> Range<usize> {
    let inner = &text[range.clone()];
    for quote in ['"', '\''] {
        if inner.strip_prefix(quote).is_some_and(|rest| rest.ends_with(quote)) {
            return range.start + 1..range.end - 1;
        }
    }
    range
}

/// A target's text, taken from the front.
struct Fields<'a> {
    text: &'a str,
    /// Where the text begins in the whole.
    offset: usize,
    at: usize,
}

impl<'a> Fields<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Where the next `len` bytes are in the whole.
    fn span(&self, len: usize) -> Range<usize> {
        self.offset + self.at..self.offset + self.at + len
    }

    /// Takes one character, if it comes next.
    fn take(&mut self, c: char) -> bool {
        let found = self.rest().starts_with(c);
        self.at += usize::from(found);
        found
    }

    /// Takes the text until `end` and `end` itself.
    fn until(&mut self, end: char, name: &str) -> Result<(&'a str, Range<usize>), Refusal> {
        let rest = self.rest();
        let Some(len) = rest.find(end) else {
            let message = format!("`{end}` must follow the {name}, also if that is left out");
            return Err(Refusal::new(self.span(rest.len()), message));
        };
        let span = self.span(len);
        self.at += len + 1;
        Ok((&rest[..len], span))
    }

    /// The same, and what is left out is `None`.
    fn optional<T>(
        &mut self,
        end: char,
        name: &str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let (text, span) = self.until(end, name)?;
        if text.is_empty() {
            return Ok(None);
        }
        match read(text) {
            Some(value) => Ok(Some(value)),
            None => Err(Refusal::new(span, format!("{text:?} cannot be the {name}"))),
        }
    }
}

fn target(mut fields: Fields<'_>) -> Result<KernelTarget, Refusal> {
    let mut target = KernelTarget { extended: fields.take('+'), ..KernelTarget::default() };
    if fields.rest().starts_with('r') {
        if !target.extended {
            let message = "`r` needs the extended format";
            let help = "`+r`: the kernel takes `r` alone only if built with extended as default";
            return Err(Refusal { help, ..Refusal::new(fields.span(1), message) });
        }
        target.release = fields.take('r');
    }
    if let Some(port) = fields.optional('@', "source port", address::port)? {
        target.local_port = port;
    }
    target.local_ip = fields.optional('/', "source address", address::ip)?;
    if let Some(device) = fields.optional(',', "device", device)? {
        target.device = device;
    }
    if let Some(port) = fields.optional('@', "port of the receiver", address::port)? {
        target.remote_port = port;
    }
    let (text, span) = fields.until('/', "address of the receiver")?;
    let Some(remote) = address::ip(text) else {
        let message = match text {
            "" => "the address of the receiver is missing".to_owned(),
            text => format!("{text:?} cannot be the address of the receiver"),
        };
        return Err(Refusal::new(span, message));
    };
    if target.local_ip.is_some_and(|local| local.is_ipv4() != remote.is_ipv4()) {
        let message = "the two addresses are of different IP versions";
        return Err(Refusal::new(span, message));
    }
    target.remote_ip = Some(remote);
    let mac = fields.rest();
    if !mac.is_empty() {
        target.remote_mac = address::mac(mac).ok_or_else(|| {
            let message = format!("{mac:?} cannot be the MAC of the receiver");
            Refusal::new(fields.span(mac.len()), message)
        })?;
    }
    Ok(target)
}

/// A text with a colon is a MAC.
fn device(text: &str) -> Option<Device> {
    if text.contains(':') {
        return address::mac(text).map(Device::Mac);
    }
    Some(Device::Name(text.to_owned()))
}
