//! The header by which a proxy says whose connection it passes on: PROXY protocol, versions 1 and 2, as in
//! <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>. Bytes in, addresses out; no sockets and no clocks.
//!
//! ```text
//! PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n         version 1: a line
//! PROXY UNKNOWN\r\n                                       a connection of the proxy's own
//!
//! \r\n\r\n\0\r\nQUIT\n  21  11  00 0c  c0000201 c6336407 dc04 01bb     version 2: binary
//! signature             |   |   length behind it, with additional fields (TLVs)
//!                       |   family and transport: 11 TCP over IPv4, 21 TCP over IPv6, 31 unix; x2 datagrams; 00 none
//!                       version and command: 20 LOCAL, of the proxy's own; 21 PROXY
//! ```
//!
//! It is as strict as the specification asks receivers to be, since whoever can have a header read in another way can
//! choose the address that he seems to come from. What is wrong is refused at the first byte that shows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, with its line end (specification, 2.1).
pub const MAX_V1: usize = 107;
/// The longest header of version 2 that is read, additional fields included; 65,551 bytes would be possible. As nginx.
pub const MAX_V2: usize = 4096;

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// What is there may be the beginning of a header.
    Incomplete,
    /// A header.
    Complete(Header),
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The bytes that it takes; what follows is the client's.
    pub len: usize,
    /// Whose connection it is; `None` if that is not said (LOCAL, UNKNOWN, UNSPEC), or not by addresses of TCP over IP.
    pub addresses: Option<Addresses>,
}

/// The two ends of the connection that is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// Where it has connected to.
    pub destination: SocketAddr,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// They begin like neither version.
    Signature,
    /// Version 1: the line does not end in 107 bytes.
    LineTooLong,
    /// Version 1: not `TCP4`, `TCP6` or `UNKNOWN`.
    Protocol,
    /// Version 1: more or fewer words than there must be, or more than one space between them.
    Words,
    /// Version 1: an address that is none of the protocol's.
    Address,
    /// Version 1: not a number from 0 to 65535, in digits without leading zeros.
    Port,
    /// Version 1: LF without CR, or CR within the line.
    LineEnd,
    /// Version 2: another version behind its signature.
    Version,
    /// Version 2: neither LOCAL nor PROXY.
    Command,
    /// Version 2: a family or transport that does not exist.
    Family,
    /// Version 2: it says that it is longer than 4096 bytes.
    TooLong,
    /// Version 2: no room for the addresses of its family.
    TooShort,
}

impl Reason {
    /// What is wrong, as it is logged.
    pub const fn describe(self) -> &'static str {
        match self {
            Reason::Signature => "no header of the PROXY protocol",
            Reason::LineTooLong => "the line is longer than 107 bytes",
            Reason::Protocol => "neither TCP4, TCP6 nor UNKNOWN",
            Reason::Words => "not four words behind the protocol",
            Reason::Address => "an invalid address",
            Reason::Port => "an invalid port",
            Reason::LineEnd => "the line does not end in CRLF",
            Reason::Version => "an unknown version",
            Reason::Command => "an unknown command",
            Reason::Family => "an unknown address family or transport",
            Reason::TooLong => "longer than 4096 bytes",
            Reason::TooShort => "too short for its addresses",
        }
    }
}

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part of version 2: signature, command, family, length.
const V2_FIXED: usize = 16;

/// Parses the bytes that came first on a connection. They may be incomplete, and may be followed by others.
pub fn parse(bytes: &[u8]) -> Result<Progress, Reason> {
    let begins = |signature: &[u8]| bytes.iter().zip(signature).all(|(a, b)| a == b);
    if begins(V1) {
        parse_v1(bytes)
    } else if begins(V2) {
        parse_v2(bytes)
    } else {
        Err(Reason::Signature)
    }
}

// ---- version 1

fn parse_v1(bytes: &[u8]) -> Result<Progress, Reason> {
    let within = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = within.iter().position(|&byte| byte == b'\n') else {
        return if within.len() == MAX_V1 { Err(Reason::LineTooLong) } else { Ok(Progress::Incomplete) };
    };
    let line = within[..end].strip_suffix(b"\r").ok_or(Reason::LineEnd)?;
    if line.contains(&b'\r') {
        return Err(Reason::LineEnd);
    }
    // Where the line ends before the signature does.
    let rest = line.strip_prefix(V1).ok_or(Reason::Signature)?;
    let (protocol, rest) = split_at_space(rest);
    let addresses = match protocol {
        b"TCP4" => Some(words(rest, |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4))?),
        b"TCP6" => Some(words(rest, |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6))?),
        // What follows is to be ignored (specification, 2.1).
        b"UNKNOWN" => None,
        _ => return Err(Reason::Protocol),
    };
    Ok(Progress::Complete(Header { len: end + 1, addresses }))
}

/// The first word, and what follows the space behind it.
fn split_at_space(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|&byte| byte == b' ') {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}

/// Source address, destination address, source port, destination port.
fn words(rest: Option<&[u8]>, address: impl Fn(&str) -> Option<IpAddr>) -> Result<Addresses, Reason> {
    let mut words = rest.ok_or(Reason::Words)?.split(|&byte| byte == b' ');
    let (Some(source), Some(destination), Some(source_port), Some(destination_port), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Reason::Words);
    };
    let address = |word| str::from_utf8(word).ok().and_then(&address).ok_or(Reason::Address);
    Ok(Addresses {
        source: SocketAddr::new(address(source)?, port(source_port)?),
        destination: SocketAddr::new(address(destination)?, port(destination_port)?),
    })
}

fn port(word: &[u8]) -> Result<u16, Reason> {
    let is_plain = word.iter().all(u8::is_ascii_digit) && (word.len() == 1 || word.first() != Some(&b'0'));
    let number = str::from_utf8(word).ok().filter(|_| is_plain).and_then(|word| word.parse().ok());
    number.ok_or(Reason::Port)
}

// ---- version 2

fn parse_v2(bytes: &[u8]) -> Result<Progress, Reason> {
    let Some(&command) = bytes.get(V2.len()) else { return Ok(Progress::Incomplete) };
    if command >> 4 != 2 {
        return Err(Reason::Version);
    }
    let is_local = match command & 0xf {
        0 => true,
        1 => false,
        _ => return Err(Reason::Command),
    };
    let Some(&kind) = bytes.get(V2.len() + 1) else { return Ok(Progress::Incomplete) };
    // The bytes of the two addresses. With LOCAL, whatever stands there is ignored (specification, 2.2).
    let addresses = match (kind >> 4, kind & 0xf) {
        _ if is_local => 0,
        (4.., _) | (_, 3..) => return Err(Reason::Family),
        (0, _) => 0,
        (1, _) => 2 * 4 + 4,
        (2, _) => 2 * 16 + 4,
        (3.., _) => 2 * 108,
    };
    let Some(&[high, low]) = bytes.get(V2_FIXED - 2..V2_FIXED) else { return Ok(Progress::Incomplete) };
    let len = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_V2 {
        return Err(Reason::TooLong);
    }
    if len < V2_FIXED + addresses {
        return Err(Reason::TooShort);
    }
    let Some(body) = bytes.get(V2_FIXED..len) else { return Ok(Progress::Incomplete) };
    let addresses = match kind {
        _ if is_local => None,
        0x11 => ends(body, |octets: [u8; 4]| IpAddr::from(octets)),
        0x21 => ends(body, |octets: [u8; 16]| IpAddr::from(octets)),
        // Datagrams, and unix sockets: not whom a client of TCP comes from.
        _ => None,
    };
    Ok(Progress::Complete(Header { len, addresses }))
}

/// Source address, destination address, source port, destination port.
fn ends<const N: usize>(body: &[u8], ip: impl Fn([u8; N]) -> IpAddr) -> Option<Addresses> {
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let destination_port = rest.first_chunk::<2>()?;
    Some(Addresses {
        source: SocketAddr::new(ip(*source), u16::from_be_bytes(*source_port)),
        destination: SocketAddr::new(ip(*destination), u16::from_be_bytes(*destination_port)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(source: &str, destination: &str) -> Option<Addresses> {
        Some(Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    /// A header of version 2 with this command, family and body.
    fn v2(command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [V2, &[command, kind], &length, body].concat()
    }

    const IPV4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];

    fn ipv6() -> Vec<u8> {
        let (source, destination): (Ipv6Addr, Ipv6Addr) = ("2001:db8::1".parse().unwrap(), "::1".parse().unwrap());
        [&source.octets()[..], &destination.octets(), &[0xff, 0xff, 0, 80]].concat()
    }

    /// Every header is found with anything behind it, and nothing is said before its last byte.
    fn reads(header: &[u8], expected: Option<Addresses>) {
        let complete = Progress::Complete(Header { len: header.len(), addresses: expected });
        assert_eq!(parse(header), Ok(complete), "{}", header.escape_ascii());
        assert_eq!(parse(&[header, b"GET / HTTP/1.1\r\n"].concat()), Ok(complete));
        for len in 0..header.len() {
            assert_eq!(parse(&header[..len]), Ok(Progress::Incomplete), "{}", header[..len].escape_ascii());
        }
    }

    #[test]
    fn version_1() {
        let v4 = addresses("192.0.2.1:56324", "198.51.100.7:443");
        reads(b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", v4);
        reads(b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", addresses("0.0.0.0:0", "255.255.255.255:65535"));
        reads(b"PROXY TCP6 2001:db8::1 ::1 65535 80\r\n", addresses("[2001:db8::1]:65535", "[::1]:80"));
        let long = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let line = format!("PROXY TCP6 {long} {long} 65535 65535\r\n");
        assert_eq!(line.len(), 104);
        let end = format!("[{long}]:65535");
        reads(line.as_bytes(), addresses(&end, &end));
        reads(b"PROXY UNKNOWN\r\n", None);
        reads(b"PROXY UNKNOWN a  b c d e f g \x80\r\n", None);
        // The longest line that the specification knows of.
        let unknown = format!("PROXY UNKNOWN {long} {long} 65535 65535\r\n");
        assert_eq!(unknown.len(), MAX_V1);
        reads(unknown.as_bytes(), None);
    }

    #[test]
    fn wrong_lines_of_version_1() {
        for (line, reason) in [
            ("GET / HTTP/1.1\r\n", Reason::Signature),
            ("proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n", Reason::Signature),
            ("PROXY\r\n", Reason::Signature),
            ("PROXY \r\n", Reason::Protocol),
            ("PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n", Reason::Protocol),
            ("PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n", Reason::Protocol),
            ("PROXY UNKNOWNS\r\n", Reason::Protocol),
            ("PROXY TCP4\r\n", Reason::Words),
            ("PROXY TCP4 \r\n", Reason::Words),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n", Reason::Words),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n", Reason::Words),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 1  1\r\n", Reason::Words),
            ("PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n", Reason::Words),
            ("PROXY TCP4 1.1.1.1\t1.1.1.1 1 1\r\n", Reason::Words),
            ("PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n", Reason::Address),
            ("PROXY TCP4 1.1.1.256 1.1.1.1 1 1\r\n", Reason::Address),
            ("PROXY TCP4 1.1.1.01 1.1.1.1 1 1\r\n", Reason::Address),
            ("PROXY TCP4 ::1 ::1 1 1\r\n", Reason::Address),
            ("PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", Reason::Address),
            ("PROXY TCP6 [::1] ::1 1 1\r\n", Reason::Address),
            ("PROXY TCP6 ::1%lo ::1 1 1\r\n", Reason::Address),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 65536 1\r\n", Reason::Port),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 1 +1\r\n", Reason::Port),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n", Reason::Port),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 1 -1\r\n", Reason::Port),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n", Reason::LineEnd),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\r\n", Reason::LineEnd),
            ("PROXY UNKNOWN\n", Reason::LineEnd),
            ("PROXY UNKNOWN a\rb\r\n", Reason::LineEnd),
        ] {
            assert_eq!(parse(line.as_bytes()), Err(reason), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 15));
        assert_eq!(parse(long.as_bytes()), Err(Reason::LineTooLong));
        assert_eq!(parse(&long.as_bytes()[..MAX_V1 - 1]), Ok(Progress::Incomplete));
        assert_eq!(parse(&long.as_bytes()[..MAX_V1]), Err(Reason::LineTooLong));
        // At the first byte that cannot be one of a header.
        assert_eq!(parse(b"G"), Err(Reason::Signature));
        assert_eq!(parse(b"PROXZ"), Err(Reason::Signature));
        assert_eq!(parse(b"\r\n\r\nG"), Err(Reason::Signature));
    }

    #[test]
    fn version_2() {
        reads(&v2(0x21, 0x11, IPV4), addresses("192.0.2.1:56324", "198.51.100.7:443"));
        reads(&v2(0x21, 0x21, &ipv6()), addresses("[2001:db8::1]:65535", "[::1]:80"));
        // Additional fields are passed over.
        let tlvs = [IPV4, &[0x04, 0, 2, 1, 2], &[0x20, 0, 0]].concat();
        reads(&v2(0x21, 0x11, &tlvs), addresses("192.0.2.1:56324", "198.51.100.7:443"));
        let longest = [IPV4, &vec![0; MAX_V2 - V2_FIXED - IPV4.len()]].concat();
        reads(&v2(0x21, 0x11, &longest), addresses("192.0.2.1:56324", "198.51.100.7:443"));
        // Of the proxy's own, or not of TCP over IP.
        for (command, kind, body) in [
            (0x20, 0x00, &[][..]),
            (0x20, 0x11, IPV4),
            (0x20, 0xff, &[1, 2, 3]),
            (0x21, 0x00, &[]),
            (0x21, 0x01, &[0; 5]),
            (0x21, 0x10, IPV4),
            (0x21, 0x12, IPV4),
            (0x21, 0x22, &ipv6()),
            (0x21, 0x31, &[b'x'; 216]),
        ] {
            reads(&v2(command, kind, body), None);
        }
    }

    #[test]
    fn wrong_headers_of_version_2() {
        for (command, kind, body, reason) in [
            (0x11, 0x11, IPV4, Reason::Version),
            (0x31, 0x11, IPV4, Reason::Version),
            (0x22, 0x11, IPV4, Reason::Command),
            (0x2f, 0x11, IPV4, Reason::Command),
            (0x21, 0x41, IPV4, Reason::Family),
            (0x21, 0x13, IPV4, Reason::Family),
            (0x21, 0x03, &[], Reason::Family),
            (0x21, 0x11, &IPV4[..11], Reason::TooShort),
            (0x21, 0x21, IPV4, Reason::TooShort),
            (0x21, 0x31, &[0; 215], Reason::TooShort),
        ] {
            assert_eq!(parse(&v2(command, kind, body)), Err(reason), "{command:x} {kind:x}");
        }
        let long = v2(0x21, 0x11, &vec![0; MAX_V2 - V2_FIXED + 1]);
        assert_eq!(parse(&long[..V2_FIXED - 1]), Ok(Progress::Incomplete));
        assert_eq!(parse(&long[..V2_FIXED]), Err(Reason::TooLong), "before its rest is read");
    }
}
