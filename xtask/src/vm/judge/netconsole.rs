//! Judges what the kernel's own netconsole did in the guest: whether it is what `README.md` says
//! where it compares the agent with it.
//!
//! What depends on the kernel is demanded of each: one that has learnt something fails here, and
//! the README is to say so.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use super::super::kernel::version;
use super::super::record::{Message, Record, messages};
use super::super::report::Outcome;
use super::{Evidence, KERNEL_BASE, Target, verdict};

const PORT_AT_LOAD: u16 = 6670;
const PORT_GIVEN: u16 = 6671;
const PORT_OTHER: u16 = 6672;
const PORT_BRIDGE: u16 = 6673;
const GIVEN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x17];
/// Records that the writer of the runner logged in a row.
const PRINTED: u64 = 10;
/// All that can be set for a target: nothing about levels, texts or rates.
const SETTINGS: &str = "dev_name enabled extended local_ip local_mac local_port release remote_ip \
                        remote_mac remote_port transmit_errors userdata";

impl Evidence<'_> {
    /// One test for each thing.
    pub(super) fn netconsole(&self) -> Vec<Outcome> {
        let veth = if self.since(&[6, 12]) { "refused" } else { "taken" };
        let back = if self.since(&[7]) { "enabled=true" } else { "enabled=false" };
        let name = if self.since(&[6, 18]) { "refused" } else { "taken as 222.0.0.0" };
        let ports = ["bridge-joined", "bridge-port", "bond-joined", "bond-port"];
        let [bridge, bridge_port, bond, bond_port] = ports;
        let is_out = "enabled=false";
        [
            ("before", self.netconsole_before()),
            ("drivers", self.demand(&[("veth", veth)])),
            ("bridge", self.demand(&[(bridge, is_out), (bridge_port, "refused")])),
            ("bond", self.demand(&[(bond, is_out), (bond_port, "refused")])),
            ("comes-back", self.demand(&[("device-gone", is_out), ("device-back", back)])),
            ("next-hop", self.netconsole_next_hop()),
            ("device-down", self.netconsole_dark("device", PORT_GIVEN)),
            ("no-carrier", self.netconsole_dark("carrier", PORT_BRIDGE)),
            ("addresses", self.demand(&[("name", name), ("other-address", "refused")])),
            ("level", self.netconsole_level()),
            ("extra-data", self.netconsole_extra_data()),
            ("who-prints", self.netconsole_who_prints()),
        ]
        .map(|(name, result)| (format!("netconsole/{name}"), verdict(result)))
        .into()
    }

    fn since(&self, known: &[u64]) -> bool {
        self.report.info("release").is_ok_and(|release| version(release).as_slice() >= known)
    }

    fn found(&self, name: &str) -> Result<&str> {
        self.report.info(&format!("netconsole-{name}"))
    }

    /// Demands how the runner's findings begin.
    fn demand(&self, wanted: &[(&str, &str)]) -> Result<String> {
        let mut all = Vec::new();
        for (name, wanted) in wanted {
            let found = self.found(name)?;
            ensure!(found.starts_with(wanted), "{name}: {found}, not {wanted}");
            all.push(format!("{name} {found}"));
        }
        Ok(all.join(", "))
    }

    /// What a target of netconsole's sent, each of which must be a record.
    fn sent_records(&self, port: u16) -> Result<BTreeMap<u64, Message>> {
        let logged: BTreeMap<u64, &Record> =
            self.report.records.iter().map(|record| (record.seq, record)).collect();
        let mut sent = BTreeMap::new();
        for message in messages(&self.payloads(port), false)? {
            let seq = message.seq;
            let record = logged.get(&seq).with_context(|| format!("seq {seq} is no record"))?;
            ensure!(message.body == record.body, "seq {seq} is not the record");
            ensure!(sent.insert(seq, message).is_none(), "seq {seq} came twice");
        }
        Ok(sent)
    }

    /// Demands that those of these records were sent that are marked with `true`.
    fn demand_sent(&self, port: u16, texts: &[(&str, bool)]) -> Result<()> {
        let sent = self.sent_records(port)?;
        for (text, wanted) in texts {
            let seq = self.logged(text)?;
            ensure!(sent.contains_key(&seq) == *wanted, "port {port}: {text} (sent: {})", !wanted);
        }
        Ok(())
    }

    /// The seq of the record with this text.
    fn logged(&self, text: &str) -> Result<u64> {
        let body = format!("netconsole {text}\n");
        let found = self.report.records.iter().find(|record| record.body == body.as_bytes());
        Ok(found.with_context(|| format!("{body:?} was not logged"))?.seq)
    }

    /// A target by the module's parameter sends what was logged before, one by configfs does not.
    fn netconsole_before(&self) -> Result<String> {
        let first = self.report.records.first().context("no records")?.seq;
        let by_parameter = self.sent_records(PORT_AT_LOAD)?;
        ensure!(by_parameter.contains_key(&first), "seq {first} was not sent by the parameter's");
        let newest = by_parameter.keys().next_back().copied();
        let by_configfs = messages(&self.payloads(KERNEL_BASE + Target::Extended.offset()), false)?;
        let start = by_configfs.first().context("configfs' target sent nothing")?.seq;
        ensure!(Some(start) > newest, "configfs' target sent seq {start}, logged before");
        Ok(format!("{} records of before by the module's parameter alone", by_parameter.len()))
    }

    /// It stays with the MAC that it was given, or with broadcast.
    fn netconsole_next_hop(&self) -> Result<String> {
        for (port, wanted) in [(PORT_GIVEN, GIVEN_MAC), (PORT_OTHER, [0xff; 6])] {
            self.demand_sent(port, &[("next hop moved", true)])?;
            let frames = self.sent.get(&port).into_iter().flatten();
            let macs: BTreeSet<[u8; 6]> = frames.map(|frame| frame.destination_mac).collect();
            ensure!(macs == BTreeSet::from([wanted]), "port {port}: frames were sent to {macs:x?}");
        }
        Ok("another MAC of the next hop changed nothing".to_owned())
    }

    /// What was logged meanwhile is lost, and nothing but the hole in the sequence tells of it.
    fn netconsole_dark(&self, what: &str, port: u16) -> Result<String> {
        let [before, meanwhile, after] =
            ["before", "meanwhile", "after"].map(|when| format!("{what} {when}"));
        self.demand_sent(port, &[(&before, true), (&meanwhile, false), (&after, true)])?;
        Ok("a record is lost, and the hole in the sequence alone tells of it".to_owned())
    }

    /// The console's level decides for every target, and there is no setting for one.
    fn netconsole_level(&self) -> Result<String> {
        for port in [PORT_GIVEN, PORT_OTHER] {
            self.demand_sent(port, &[("level 4", true), ("level 5", false), ("level 6", false)])?;
        }
        let settings = self.found("settings")?;
        let other = settings.split(' ').find(|name| !SETTINGS.split(' ').any(|own| own == *name));
        ensure!(other.is_none(), "there is a setting {other:?}");
        Ok(format!("settings of a target: {settings}"))
    }

    fn netconsole_extra_data(&self) -> Result<String> {
        let keys = self.report.list("sysdata")?;
        let mut wanted = BTreeSet::new();
        if self.since(&[6, 16]) {
            wanted.extend(["cpu", "taskname", "release"]);
        }
        if self.since(&[6, 18]) {
            wanted.insert("msgid");
        }
        ensure!(keys == wanted, "the keys are {keys:?}, not {wanted:?}");
        let has_userdata = self.found("settings")?.split(' ').any(|name| name == "userdata");
        ensure!(has_userdata == self.since(&[6, 9]), "userdata: {has_userdata}");
        Ok(format!("userdata: {has_userdata}, keys {keys:?}"))
    }

    /// Before 7.0 a writer goes on when the driver has the packet; since, a thread prints.
    fn netconsole_who_prints(&self) -> Result<String> {
        let printers = self.found("printers")?;
        let at_return: u64 = self.found("at-return")?.parse().context("at-return")?;
        let by_thread = self.since(&[7]);
        ensure!(by_thread != printers.is_empty(), "the threads that print are {printers:?}");
        ensure!(by_thread || at_return >= PRINTED, "only {at_return} packets were sent at return");
        Ok(format!("{at_return} packets of {PRINTED} at the writer's return; threads: {printers}"))
    }
}
