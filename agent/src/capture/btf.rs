//! Where the running kernel keeps its fields: a reader of its BTF.
//!
//! Rust's eBPF target has no CO-RE relocations, so the agent looks the offsets up
//! here and passes them to the programs as read-only globals. It reads structs
//! and unions only, checks every length, and knows nothing of relocations.
//! Format: `Documentation/bpf/btf.rst`, `include/uapi/linux/btf.h`.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// Why a layout could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error(
        "cannot read the kernel's type information {path}: {source} (the kernel needs CONFIG_DEBUG_INFO_BTF=y)"
    )]
    Read {
        /// File that was read.
        path: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not BTF or is cut short.
    #[error("the kernel's type information is damaged: {0}")]
    Damaged(&'static str),
    /// The kernel has no such struct or field.
    #[error("this kernel has no field `{0}`")]
    NoField(String),
    /// A struct is longer than the programs have room for.
    #[error("this kernel's `{name}` is longer than the {room_bytes} bytes that are read of it")]
    TooLong {
        /// The struct.
        name: &'static str,
        /// What the programs have room for.
        room_bytes: usize,
    },
}

/// The structs of one kernel.
pub struct Btf {
    bytes: Vec<u8>,
    strings_at: usize,
    /// Offset of each type's `struct btf_type`; index 0 is type id 1.
    types: Vec<u32>,
    /// Type id of each named struct and union.
    by_name: HashMap<Vec<u8>, u32>,
}

/// A field as BTF describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bits from the start of the struct.
    pub bit_offset: u32,
    type_id: u32,
}

impl Field {
    /// Bytes from the start of the struct (of the byte a bit field begins in).
    #[must_use]
    pub fn offset_bytes(self) -> u32 {
        self.bit_offset / 8
    }
}

impl Btf {
    /// Where the kernel shows its own BTF.
    pub const SYSFS_PATH: &'static str = "/sys/kernel/btf/vmlinux";

    /// Reads the running kernel's BTF.
    ///
    /// # Errors
    /// If the file is missing or damaged.
    pub fn of_running_kernel() -> Result<Self, BtfError> {
        let bytes = std::fs::read(Self::SYSFS_PATH)
            .map_err(|source| BtfError::Read { path: Self::SYSFS_PATH, source })?;
        Self::parse(bytes)
    }

    /// Indexes raw BTF.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let u32_at = |at: usize| read_u32(&bytes, at).ok_or(BtfError::Damaged("header cut short"));
        let magic = u16::from_le_bytes(
            bytes.get(..2).and_then(|b| b.try_into().ok()).ok_or(BtfError::Damaged("empty"))?,
        );
        if magic != MAGIC {
            return Err(BtfError::Damaged("wrong magic number"));
        }
        let header_len = u32_at(4)? as usize;
        let types_at = header_len + u32_at(8)? as usize;
        let types_end = types_at + u32_at(12)? as usize;
        let strings_at = header_len + u32_at(16)? as usize;
        if types_end > bytes.len() || strings_at > bytes.len() {
            return Err(BtfError::Damaged("sections beyond the end"));
        }
        let mut btf = Self { bytes, strings_at, types: Vec::new(), by_name: HashMap::new() };
        let mut at = types_at;
        while at < types_end {
            let (name, kind, vlen) = btf.head(at).ok_or(BtfError::Damaged("type cut short"))?;
            let extra = match kind {
                1 | 14 | 17 => 4, // int, var, decl tag
                3 => 12,          // array
                KIND_STRUCT | KIND_UNION => 12 * vlen,
                6 | 13 => 8 * vlen,        // enum, function prototype
                15 | 19 => 12 * vlen,      // data section, enum64
                2 | 7..=12 | 16 | 18 => 0, // pointer, forward, typedef, qualifiers, function, float, type tag
                _ => return Err(BtfError::Damaged("unknown kind of type")),
            };
            btf.types.push(at as u32);
            if matches!(kind, KIND_STRUCT | KIND_UNION) && name != 0 {
                let id = btf.types.len() as u32;
                let name = btf.string(name).to_vec();
                btf.by_name.entry(name).or_insert(id);
            }
            at += 12 + extra;
        }
        Ok(btf)
    }

    /// Size of a struct in bytes.
    ///
    /// # Errors
    /// If the kernel has no such struct.
    pub fn size_bytes(&self, name: &str) -> Result<u32, BtfError> {
        let no_field = || BtfError::NoField(name.to_owned());
        let id = *self.by_name.get(name.as_bytes()).ok_or_else(no_field)?;
        self.type_at(id).and_then(|at| read_u32(&self.bytes, at + 8)).ok_or_else(no_field)
    }

    /// Finds a field by its path, such as `net` and `ns.inum`. Members of
    /// anonymous structs and unions are found as in C.
    ///
    /// # Errors
    /// If the kernel has no such field.
    pub fn field(&self, struct_name: &str, path: &str) -> Result<Field, BtfError> {
        let no_field = || BtfError::NoField(format!("{struct_name}.{path}"));
        let mut type_id = *self.by_name.get(struct_name.as_bytes()).ok_or_else(no_field)?;
        let mut bit_offset = 0;
        for member in path.split('.') {
            let found = self.member(type_id, member.as_bytes(), 0).ok_or_else(no_field)?;
            bit_offset += found.bit_offset;
            type_id = found.type_id;
        }
        Ok(Field { bit_offset, type_id })
    }

    fn member(&self, type_id: u32, name: &[u8], depth: u32) -> Option<Field> {
        // Deeper than any kernel struct nests; ends a cycle in damaged data.
        if depth > 16 {
            return None;
        }
        let at = self.type_at(self.strip(type_id)?)?;
        let (_, kind, vlen) = self.head(at)?;
        if !matches!(kind, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        let bit_fields = read_u32(&self.bytes, at + 4)? >> 31 != 0;
        for index in 0..vlen {
            let member_at = at + 12 + 12 * index;
            let member_name = read_u32(&self.bytes, member_at)?;
            let member_type = read_u32(&self.bytes, member_at + 4)?;
            let raw_offset = read_u32(&self.bytes, member_at + 8)?;
            let bit_offset = if bit_fields { raw_offset & 0x00ff_ffff } else { raw_offset };
            if member_name == 0 {
                if let Some(inner) = self.member(member_type, name, depth + 1) {
                    return Some(Field { bit_offset: bit_offset + inner.bit_offset, ..inner });
                }
            } else if self.string(member_name) == name {
                return Some(Field { bit_offset, type_id: member_type });
            }
        }
        None
    }

    /// Follows typedefs, qualifiers and type tags.
    fn strip(&self, mut type_id: u32) -> Option<u32> {
        for _ in 0..32 {
            let at = self.type_at(type_id)?;
            let (_, kind, _) = self.head(at)?;
            match kind {
                8..=11 | 18 => type_id = read_u32(&self.bytes, at + 8)?,
                _ => return Some(type_id),
            }
        }
        None
    }

    fn type_at(&self, type_id: u32) -> Option<usize> {
        self.types.get(type_id.checked_sub(1)? as usize).map(|at| *at as usize)
    }

    fn head(&self, at: usize) -> Option<(u32, u32, usize)> {
        let name = read_u32(&self.bytes, at)?;
        let info = read_u32(&self.bytes, at + 4)?;
        read_u32(&self.bytes, at + 8)?;
        Some((name, (info >> 24) & 0x1f, (info & 0xffff) as usize))
    }

    fn string(&self, offset: u32) -> &[u8] {
        let rest = self.bytes.get(self.strings_at + offset as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_input_is_an_error() {
        for bytes in [vec![], vec![0x9f, 0xeb], vec![1; 64]] {
            assert!(Btf::parse(bytes).is_err());
        }
        if let Ok(good) = std::fs::read(Btf::SYSFS_PATH) {
            for len in [10, 24, 25, 100, 1000, good.len() / 2] {
                assert!(Btf::parse(good[..len].to_vec()).is_err());
            }
        }
    }

    #[test]
    fn finds_fields_of_the_running_kernel() {
        let btf = match Btf::of_running_kernel() {
            Ok(btf) => btf,
            Err(error) => {
                println!("SKIPPED: {error}");
                return;
            }
        };
        assert_eq!(btf.field("printk_info", "seq").unwrap().bit_offset, 0);
        assert_eq!(btf.field("printk_info", "ts_nsec").unwrap().offset_bytes(), 8);
        let flags = btf.field("printk_info", "flags").unwrap();
        let level = btf.field("printk_info", "level").unwrap();
        assert_eq!(level.bit_offset - flags.bit_offset, 5);
        assert!(btf.size_bytes("printk_info").unwrap() >= 88);
        assert!(btf.field("net", "ns.inum").is_ok());
        assert!(matches!(
            btf.field("printk_info", "no_such_thing"),
            Err(BtfError::NoField(name)) if name == "printk_info.no_such_thing"
        ));
    }
}
