//! Numbers, identities and absent values as an operator reads them.

use kedge_model::SpiffeId;
use std::fmt::Display;

/// The two largest units of a duration.
pub fn duration(seconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let at = UNITS
        .iter()
        .position(|(_, unit)| seconds >= *unit)
        .unwrap_or(3);
    let (name, unit) = UNITS[at];
    let largest = format!("{}{name}", seconds / unit);
    match UNITS.get(at + 1) {
        Some((below, size)) => format!("{largest} {}{below}", seconds % unit / size),
        None => largest,
    }
}

/// Bytes with one digit after the point, in powers of 1,024.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let power = (count.ilog2() / 10) as usize;
    let unit = 1u128 << (10 * power);
    let tenths = u128::from(count) * 10 / unit;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power - 1])
}

/// `ns/N/sa/S` as `N/S`, a node as its name, anything else as its path.
pub fn short(id: &SpiffeId) -> String {
    if let Some(node) = id.node_name() {
        return node.to_string();
    }
    match id.path().split('/').collect::<Vec<_>>().as_slice() {
        ["", "ns", namespace, "sa", account] => format!("{namespace}/{account}"),
        _ => id.path().to_owned(),
    }
}

/// The value, or a dash.
pub fn or_dash(value: Option<impl Display>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_an_operator_expects() {
        let durations = [0, 59, 60, 3_661, 90_000].map(duration);
        assert_eq!(durations, ["0s", "59s", "1m 0s", "1h 1m", "1d 1h"]);
        let sizes = [0, 1023, 1024, 1536, 5 << 20, u64::MAX].map(bytes);
        assert_eq!(
            sizes,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 MiB", "15.9 EiB"]
        );
    }

    #[test]
    fn identities_are_short_but_never_ambiguous() {
        let short = |text| short(&SpiffeId::parse(text).expect("literal"));
        assert_eq!(short("spiffe://td/ns/default/sa/web"), "default/web");
        assert_eq!(short("spiffe://td/kedge/node/a"), "a");
        assert_eq!(short("spiffe://td/ns/default/web"), "/ns/default/web");
    }
}
