//! Small values as the configuration writes them: rates, times, facilities, CPUs. Pure text.

use std::{ops::RangeInclusive, time::Duration};

use toml::de::{DeInteger, DeValue};

use super::table::Table;
use crate::target::filter::spec::Rate;

/// How a rate is written.
pub(super) const RATE_FORMS: &str =
    "records in a time: \"10/5s\", \"100/s\" (from 1 to 1000000, in 1ms to 1day)";
/// How the time between signs of life is written.
pub(super) const KEEPALIVE_FORMS: &str = "a time from 10s to 7days, such as \"1h\", or \"off\"";
/// How facilities are written.
const FACILITY_FORMS: &str = "\"all\", or an array of names (kern, user, mail, daemon, auth, syslog, lpr, news, uucp, cron, \
     authpriv, ftp, local0 to local7) and numbers from 0 to 255";
/// How CPUs are written.
const CPU_FORMS: &str = "a number, an array of numbers, or a list such as \"0-3,8\"";

const RATE_COUNT_MAX: u32 = 1_000_000;
const RATE_PERIODS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(86_400);
const KEEPALIVE_PERIODS: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(7 * 86_400);
/// Highest CPU number that a kernel can be built for (`NR_CPUS` of x86 and arm64, less one).
pub(super) const CPU_MAX: u32 = 8191;

/// Facilities by number: `facilitynames` of syslog.h and of dmesg in util-linux.
pub(super) const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

/// Reads `rate` of a target; `None` without a limit.
pub(super) fn target_rate(table: &mut Table<'_, '_>) -> Option<Rate> {
    let help = format!("{RATE_FORMS}, or \"off\"");
    let read = |text: &str| if text == "off" { Some(None) } else { rate(text).map(Some) };
    table.parsed("rate", &help, read).flatten()
}

/// A count and the period it is for.
pub(super) fn rate(text: &str) -> Option<Rate> {
    let (count, period) = text.split_once('/')?;
    // `u32::from_str` takes a plus sign.
    let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    let count = count.parse().ok().filter(|_| is_number)?;
    let with_number;
    let period = if period.starts_with(|first: char| first.is_ascii_alphabetic()) {
        with_number = format!("1{period}");
        &with_number
    } else {
        period
    };
    let period = humantime::parse_duration(period).ok()?;
    let fits = (1..=RATE_COUNT_MAX).contains(&count) && RATE_PERIODS.contains(&period);
    fits.then_some(Rate { count, period })
}

/// Reads `keepalive`; `None` if it is off.
pub(super) fn keepalive(table: &mut Table<'_, '_>) -> Option<Duration> {
    let read = |text: &str| match text {
        "off" => Some(None),
        _ => {
            let period = humantime::parse_duration(text).ok()?;
            KEEPALIVE_PERIODS.contains(&period).then_some(Some(period))
        }
    };
    table.parsed("keepalive", KEEPALIVE_FORMS, read).flatten()
}

/// Reads `facility`: ascending, each once; `None` for all.
pub(super) fn facilities(table: &mut Table<'_, '_>) -> Option<Vec<u8>> {
    let value = table.take("facility")?;
    let list = match value.get_ref() {
        DeValue::String(text) if text == "all" => return None,
        DeValue::Array(list) if !list.is_empty() => list,
        DeValue::Array(_) => {
            let message = "`facility` is empty, and so nothing would be sent";
            table.problem(value.span(), message, FACILITY_FORMS.to_owned());
            return None;
        }
        _ => {
            let message = "`facility` must be \"all\" or an array";
            table.problem(value.span(), message, FACILITY_FORMS.to_owned());
            return None;
        }
    };
    let mut facilities = Vec::with_capacity(list.len());
    for element in list {
        match facility(element.get_ref()) {
            Some(facility) => facilities.push(facility),
            None => {
                let message = "`facility` does not understand this";
                table.problem(element.span(), message, FACILITY_FORMS.to_owned());
            }
        }
    }
    facilities.sort_unstable();
    facilities.dedup();
    Some(facilities)
}

fn facility(value: &DeValue<'_>) -> Option<u8> {
    match value {
        DeValue::String(text) => {
            FACILITIES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number)
        }
        DeValue::Integer(number) => integer(number).and_then(|number| u8::try_from(number).ok()),
        _ => None,
    }
}

/// Reads `cpu`: ascending, each once; none for any.
pub(super) fn cpus(table: &mut Table<'_, '_>) -> Vec<u32> {
    let Some(value) = table.take("cpu") else { return Vec::new() };
    let read = match value.get_ref() {
        DeValue::String(text) => cpu_list(text),
        DeValue::Array(list) => list.iter().map(|element| cpu(element.get_ref())).collect(),
        one => cpu(one).map(|cpu| vec![cpu]),
    };
    let Some(mut cpus) = read.filter(|cpus| !cpus.is_empty()) else {
        let message = format!("`cpu` needs CPUs from 0 to {CPU_MAX}");
        table.problem(value.span(), message, CPU_FORMS.to_owned());
        return Vec::new();
    };
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

fn cpu(value: &DeValue<'_>) -> Option<u32> {
    let number = integer(value.as_integer()?)?;
    u32::try_from(number).ok().filter(|cpu| *cpu <= CPU_MAX)
}

/// The list format of `/sys/devices/system/cpu/online`.
fn cpu_list(text: &str) -> Option<Vec<u32>> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|cpu| digits && *cpu <= CPU_MAX)
    };
    let mut cpus = Vec::new();
    // Each part is bounded, and so is their number for what is said once.
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        cpus.extend(first..=last);
        cpus.sort_unstable();
        cpus.dedup();
    }
    Some(cpus)
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, count, millis) in [
            ("10/5s", 10, 5_000),
            ("100/s", 100, 1_000),
            ("1/1ms", 1, 1),
            ("1000000/1day", 1_000_000, 86_400_000),
            ("3/m", 3, 60_000),
            ("1/1m 30s", 1, 90_000),
        ] {
            let wanted = Rate { count, period: Duration::from_millis(millis) };
            assert_eq!(rate(text), Some(wanted), "{text}");
        }
        for text in [
            "0/s",
            "1000001/s",
            "1/0s",
            "1/999us",
            "1/25h",
            "+1/s",
            "1/",
            "/s",
            "10",
            "1/5",
            "",
            "1/-5s",
            "1/s/s",
            "1.5/s",
            "99999999999999999999/s",
            "1/99999999999999999999s",
        ] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(cpu_list("0-3,8, 2"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpu_list("8191"), Some(vec![8191]));
        for text in ["", "-", "3-1", "8192", "1,,2", "a", "+1", "0-8192", "1-2-3"] {
            assert_eq!(cpu_list(text), None, "{text}");
        }
    }
}
