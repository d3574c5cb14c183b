//! `[target.NAME.userdata]` and `[target.NAME.sysdata]`: what is added to each
//! record. The limits are those of the kernel's netconsole
//! ([`format::userdata`]) and of its receivers.

use std::ops::Range;

use super::table::Table;
use crate::netconsole::{FormatKind, Sysdata, SysdataKey, format};

/// Text and extra data together must stay below this, for netconsd to put the
/// fragments together again (`NCRX_LINE_MAX`, ncrx.h of netconsd).
const RECEIVER_MAX_BYTES: usize = 8192;
/// Most bytes of one record's body on kernels from 6.3 on (`PRINTK_MESSAGE_MAX`).
const BODY_MAX_BYTES: usize = 2048;
/// Most bytes that all sysdata lines need: cpu, taskname, release, msgid.
const SYSDATA_MAX_BYTES: usize = 160;
/// What is left for userdata.
const USERDATA_MAX_BYTES: usize = RECEIVER_MAX_BYTES - 1 - BODY_MAX_BYTES - SYSDATA_MAX_BYTES;

pub(super) fn userdata(
    table: &mut Table<'_, '_>,
    format: FormatKind,
    sysdata: Sysdata,
) -> Vec<(String, String)> {
    let Some((entries, span)) = table.table("userdata") else { return Vec::new() };
    needs_extended(table, format, "userdata", span.clone());
    let mut pairs = Vec::new();
    for (key, value) in entries {
        let name = key.get_ref().as_ref();
        let Some(text) = value.get_ref().as_str() else {
            table.problem(value.span(), "a userdata value must be a string in quotes", None);
            continue;
        };
        if let Err(error) = format::userdata([(name, text)]) {
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
    match format::userdata(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))) {
        Ok(lines) if lines.len() > USERDATA_MAX_BYTES => {
            let message = format!(
                "the userdata has {} bytes; with a text of up to {BODY_MAX_BYTES} and sysdata of \
                 up to {SYSDATA_MAX_BYTES} that exceeds what netconsd puts together, which is less \
                 than {RECEIVER_MAX_BYTES}",
                lines.len()
            );
            let help = format!("at most {USERDATA_MAX_BYTES} bytes of userdata");
            table.problem(span, message, help);
        }
        Ok(_) => {}
        Err(error) => table.problem(span, error.to_string(), None),
    }
    pairs
}

pub(super) fn sysdata(table: &mut Table<'_, '_>, format: FormatKind) -> Sysdata {
    let Some((entries, span)) = table.table("sysdata") else { return Sysdata::default() };
    needs_extended(table, format, "sysdata", span.clone());
    let mut inner = table.inner(entries, "sysdata", span);
    let wanted = SysdataKey::ALL
        .into_iter()
        .filter(|key| inner.bool(key.name()).is_some_and(|(on, _)| on))
        .collect();
    inner.finish();
    wanted
}

fn needs_extended(table: &mut Table<'_, '_>, format: FormatKind, what: &str, span: Range<usize>) {
    if format == FormatKind::Basic {
        let message = format!("`{what}` needs the extended format, as in the kernel's netconsole");
        table.problem(span, message, None);
    }
}
