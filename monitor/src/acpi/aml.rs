//! A small assembler for ACPI Machine Language. ACPI 6.5, 20.2.
//!
//! Every function returns the encoding of one term; bodies are concatenated byte strings.

/// AML bytes.
pub type Aml = Vec<u8>;

/// Joins terms.
pub fn join(terms: impl IntoIterator<Item = Aml>) -> Aml {
    terms.into_iter().flatten().collect()
}

/// `PkgLength` for a body, followed by the body. 20.2.4: the length counts its own bytes; one byte
/// holds 6 bits, else the first byte holds the low 4 bits and the count of further bytes.
fn with_length(body: &[u8]) -> Aml {
    let mut out = Vec::with_capacity(body.len() + 4);
    if body.len() + 1 < 0x40 {
        out.push(body.len() as u8 + 1);
    } else {
        let extra = (1..=3usize)
            .find(|&n| body.len() + n + 1 < 1 << (4 + 8 * n))
            .unwrap_or(3);
        let total = body.len() + extra + 1;
        out.push((extra as u8) << 6 | (total & 0xf) as u8);
        for i in 0..extra {
            out.push((total >> (4 + 8 * i)) as u8);
        }
    }
    out.extend_from_slice(body);
    out
}

/// A `NameString`: `\` for the root, segments of up to four characters separated by dots.
fn name_string(path: &str) -> Aml {
    let (mut out, rest) = match path.strip_prefix('\\') {
        Some(rest) => (vec![b'\\'], rest),
        None => (Vec::new(), path),
    };
    let segments: Vec<&str> = rest.split('.').filter(|s| !s.is_empty()).collect();
    match segments.len() {
        0 => out.push(0),
        1 => {}
        2 => out.push(0x2e),
        n => out.extend([0x2f, n as u8]),
    }
    for s in segments {
        out.extend((0..4).map(|i| s.as_bytes().get(i).copied().unwrap_or(b'_')));
    }
    out
}

/// An integer constant in its shortest form.
pub fn integer(value: u64) -> Aml {
    match value {
        0 => vec![0x00],
        1 => vec![0x01],
        2..=0xff => vec![0x0a, value as u8],
        0x100..=0xffff => [&[0x0b], &(value as u16).to_le_bytes()[..]].concat(),
        0x1_0000..=0xffff_ffff => [&[0x0c], &(value as u32).to_le_bytes()[..]].concat(),
        _ => [&[0x0e], &value.to_le_bytes()[..]].concat(),
    }
}

/// `EisaId("PNP0A03")`: a compressed id as an integer constant. 19.3.4.
pub fn eisa_id(id: &str) -> Aml {
    let b = id.as_bytes();
    let letter = |i: usize| u32::from(b[i] - 0x40) & 0x1f;
    let number = u32::from_str_radix(&id[3..7], 16).unwrap_or(0);
    let value = (letter(0) << 26 | letter(1) << 21 | letter(2) << 16 | number).swap_bytes();
    [&[0x0c], &value.to_le_bytes()[..]].concat()
}

/// `Name(path, value)`.
pub fn name(path: &str, value: Aml) -> Aml {
    [vec![0x08], name_string(path), value].concat()
}

/// `Package() { … }` with up to 255 elements.
pub fn package(elements: Vec<Aml>) -> Aml {
    let mut body = vec![elements.len() as u8];
    body.extend(elements.into_iter().flatten());
    [vec![0x12], with_length(&body)].concat()
}

/// `Scope(path) { … }`.
pub fn scope(path: &str, body: Aml) -> Aml {
    [vec![0x10], with_length(&[name_string(path), body].concat())].concat()
}

/// `Device(name) { … }`.
pub fn device(path: &str, body: Aml) -> Aml {
    [
        vec![0x5b, 0x82],
        with_length(&[name_string(path), body].concat()),
    ]
    .concat()
}

/// `Method(path, arguments) { … }`, not serialized.
pub fn method(path: &str, arguments: u8, body: Aml) -> Aml {
    let body = [name_string(path), vec![arguments & 7], body].concat();
    [vec![0x14], with_length(&body)].concat()
}

/// A reference to a named object.
pub fn reference(path: &str) -> Aml {
    name_string(path)
}

/// `Arg0` to `Arg6`.
pub fn argument(number: u8) -> Aml {
    vec![0x68 + number.min(6)]
}

/// `Store(value, target)`.
pub fn store(value: Aml, target: Aml) -> Aml {
    [vec![0x70], value, target].concat()
}

/// `If (condition) { … }`.
pub fn when(condition: Aml, body: Aml) -> Aml {
    [vec![0xa0], with_length(&[condition, body].concat())].concat()
}

/// `Return (value)`.
pub fn result(value: Aml) -> Aml {
    [vec![0xa4], value].concat()
}

/// `Buffer() { … }`.
fn buffer(data: &[u8]) -> Aml {
    let body = [integer(data.len() as u64), data.to_vec()].concat();
    [vec![0x11], with_length(&body)].concat()
}

/// `ResourceTemplate() { … }`: descriptors and an end tag whose checksum is not used. 6.4.2.9.
pub fn resources(descriptors: impl IntoIterator<Item = Aml>) -> Aml {
    let mut data = join(descriptors);
    data.extend([0x79, 0x00]);
    buffer(&data)
}

/// `IO(Decode16, first, first, 1, len)`. 6.4.2.5.
pub fn io(first: u16, len: u8) -> Aml {
    let [lo, hi] = first.to_le_bytes();
    vec![0x47, 0x01, lo, hi, lo, hi, 0x01, len]
}

/// `IRQNoFlags() { line }`: edge triggered, active high. 6.4.2.1.
pub fn irq(line: u8) -> Aml {
    let [lo, hi] = (1u16 << (line & 15)).to_le_bytes();
    vec![0x22, lo, hi]
}

/// `DMA(Compatibility, NotBusMaster, Transfer8) { channel }`. 6.4.2.2.
pub fn dma(channel: u8) -> Aml {
    vec![0x2a, 1 << (channel & 7), 0x00]
}

/// What an address space descriptor describes. 6.4.3.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Space {
    Memory = 0,
    Io = 1,
    Bus = 2,
}

/// `Memory32Fixed(ReadWrite, first, len)`, or read-only. 6.4.3.4.
pub fn memory_fixed(first: u32, len: u32, writable: bool) -> Aml {
    let mut out = vec![0x86, 0x09, 0x00, u8::from(writable)];
    out.extend(first.to_le_bytes());
    out.extend(len.to_le_bytes());
    out
}

/// A producer's word-sized range `first..=last` (bus numbers or ports). 6.4.3.5.3.
pub fn word_range(space: Space, first: u16, last: u16) -> Aml {
    // Fixed minimum and maximum; ports: the entire range.
    let specific = if space == Space::Io { 0x03 } else { 0x00 };
    let mut out = vec![0x88, 0x0d, 0x00, space as u8, 0x0c, specific];
    for field in [
        0,
        first,
        last,
        0,
        last - first + u16::from(last - first != u16::MAX),
    ] {
        out.extend(field.to_le_bytes());
    }
    out
}

/// A producer's memory range `first..=last`, read-write; `cacheable` as for a frame buffer.
/// 6.4.3.5.2.
pub fn memory_range(first: u32, last: u32, cacheable: bool) -> Aml {
    let specific = if cacheable { 0x03 } else { 0x01 };
    let mut out = vec![0x87, 0x17, 0x00, Space::Memory as u8, 0x0c, specific];
    for field in [0, first, last, 0, (last - first).wrapping_add(1)] {
        out.extend(field.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_each_size() {
        assert_eq!(with_length(&[7; 3])[..1], [4]);
        assert_eq!(with_length(&[0; 62])[..1], [63]);
        assert_eq!(with_length(&[0; 63])[..2], [0x41, 0x04]);
        let long = with_length(&vec![0; 5000]);
        let total =
            usize::from(long[0] & 0xf) | usize::from(long[1]) << 4 | usize::from(long[2]) << 12;
        assert_eq!((long[0] >> 6, total, long.len()), (2, 5003, 5003));
    }

    #[test]
    fn encodings_from_the_specification() {
        assert_eq!(eisa_id("PNP0A03"), [0x0c, 0x41, 0xd0, 0x0a, 0x03]);
        assert_eq!(name_string("\\_S5"), b"\\_S5_");
        assert_eq!(name_string("\\_SB.PCI0"), b"\\\x2e_SB_PCI0");
        assert_eq!(integer(0x3f8), [0x0b, 0xf8, 0x03]);
        assert_eq!(
            package(vec![integer(0), integer(5)]),
            [0x12, 0x05, 2, 0, 0x0a, 5]
        );
        assert_eq!(irq(4), [0x22, 0x10, 0x00]);
        assert_eq!(
            method("_PIC", 1, store(argument(0), reference("PICF"))),
            *b"\x14\x0c_PIC\x01\x70\x68PICF"
        );
    }
}
