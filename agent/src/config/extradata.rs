//! `[target.NAME.userdata]` and `[target.NAME.sysdata]`: what is added to each
//! record. The limits are those of the kernel's netconsole
//! ([`format::userdata`]) and of its receivers.

use super::{
    keys::{SYSDATA, USERDATA},
    places::inside,
    table::Table,
};
use crate::{
    extradata::template_syntax::{Piece, SyntaxError, pieces},
    netconsole::{Sysdata, SysdataKey, format},
};

/// Text and extra data together must stay below this, for netconsd to put the
/// fragments together again (`NCRX_LINE_MAX`, ncrx.h of netconsd).
const RECEIVER_MAX_BYTES: usize = 8192;
/// Most bytes of one record's body on kernels from 6.3 on (`PRINTK_MESSAGE_MAX`).
const BODY_MAX_BYTES: usize = 2048;
/// What is left for extra data.
const EXTRA_MAX_BYTES: usize = RECEIVER_MAX_BYTES - 1 - BODY_MAX_BYTES;

/// Reads `userdata`: each line by itself.
pub(super) fn userdata(table: &mut Table<'_, '_>, sysdata: Sysdata) -> Vec<(String, String)> {
    let Some((entries, _)) = table.table(USERDATA) else { return Vec::new() };
    let mut pairs = Vec::new();
    for (key, value) in entries {
        let name = key.get_ref().as_ref();
        let Some(text) = value.get_ref().as_str() else {
            table.problem(value.span(), "a userdata value must be a string in quotes", None);
            continue;
        };
        let plain = match plain_text(text) {
            Ok(plain) => plain,
            Err(error) => {
                let help = "\"{file:/etc/rack}\" or \"{env:JOB}\"".to_owned();
                table.problem(inside(value.span(), text, error.span), error.message, help);
                continue;
            }
        };
        if let Err(error) = format::userdata([(name, plain.as_str())]) {
            table.problem(key.span(), error.to_string(), None);
            continue;
        }
        // A key is a directory's name there.
        if matches!(name, "." | "..") || name.contains('/') {
            let message = format!("{name:?} cannot be a userdata key in the kernel's netconsole");
            table.problem(key.span(), message, "a key without slashes".to_owned());
            continue;
        }
        if sysdata.keys().any(|key| key.name() == name) {
            let message = format!("receivers will see `{name}` twice: from userdata and sysdata");
            table.warning(key.span(), message, "the line of userdata comes first");
        }
        pairs.push((name.to_owned(), text.to_owned()));
    }
    pairs
}

/// A value without its templates.
fn plain_text(value: &str) -> Result<String, SyntaxError> {
    let text = |piece| if let Piece::Text(text) = piece { text } else { "" };
    Ok(pieces(value)?.into_iter().map(text).collect())
}

/// Checks whether receivers take all lines together.
pub(super) fn check_size(
    table: &mut Table<'_, '_>,
    userdata: &[(String, String)],
    sysdata: Sysdata,
) {
    let Some(span) = table.place(USERDATA) else { return };
    // What a template will be is not known.
    let longest = "x".repeat(format::USERDATA_VALUE_MAX_BYTES);
    let is_plain = |value: &str| plain_text(value).is_ok_and(|plain| plain == value);
    let value = |value| if is_plain(value) { value } else { longest.as_str() };
    let lines = userdata.iter().map(|(key, text)| (key.as_str(), value(text.as_str())));
    match format::userdata(lines) {
        Ok(lines) if lines.len() + sysdata.max_bytes() > EXTRA_MAX_BYTES => {
            let message = format!(
                "the userdata has {} bytes; with a text of up to {BODY_MAX_BYTES} and sysdata of \
                 up to {} that exceeds what netconsd puts together, which is less than \
                 {RECEIVER_MAX_BYTES}",
                lines.len(),
                sysdata.max_bytes()
            );
            let most = EXTRA_MAX_BYTES.saturating_sub(sysdata.max_bytes());
            let help = format!(
                "at most {most} bytes of userdata, where a template counts as {} bytes",
                format::USERDATA_VALUE_MAX_BYTES
            );
            table.problem(span, message, help);
        }
        Ok(_) => {}
        Err(error) => table.problem(span, error.to_string(), None),
    }
}

/// Reads `sysdata`.
pub(super) fn sysdata(table: &mut Table<'_, '_>) -> Sysdata {
    let Some((entries, span)) = table.table(SYSDATA) else { return Sysdata::default() };
    let known = SysdataKey::ALL.into_iter().map(SysdataKey::name).collect();
    let name = table.inner_name(SYSDATA);
    let mut inner = table.inner(entries, name, span, known);
    let wanted = SysdataKey::ALL
        .into_iter()
        .filter(|key| inner.bool(key.name()).is_some_and(|(on, _)| on))
        .collect();
    inner.finish();
    wanted
}
