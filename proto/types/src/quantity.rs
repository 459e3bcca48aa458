//! Kubernetes quantities: `500m`, `2`, `1.5Gi`, `100M`, `2e3`.
//!
//! Source: "Resource units in Kubernetes" in the Kubernetes documentation and the quantity grammar of
//! `apimachinery/pkg/api/resource`. Amounts are exact integers here; a fraction rounds up as in Kubernetes.

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with an optional suffix.
    #[error(
        "{0:?} is not a quantity: expected a number with an optional suffix (m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei)"
    )]
    Syntax(String),
    /// Below zero.
    #[error("{0:?} is negative: a quantity must be zero or more")]
    Negative(String),
    /// More than 64 bits hold.
    #[error("{0:?} is out of range: a quantity must be below 2^63")]
    Range(String),
}

/// Decimal digits after the point that are read; more are an error rather than silently cut.
const FRACTION_DIGITS_MAX: usize = 9;

/// Parses a quantity into thousandths of its base unit (`1` is 1000), rounding up.
///
/// # Errors
/// When the text is not a quantity, negative, or too large.
pub fn parse_millis(text: &str) -> Result<u64, QuantityError> {
    parse_scaled(text, 1000)
}

/// Parses a quantity into whole base units (bytes), rounding up.
///
/// # Errors
/// When the text is not a quantity, negative, or too large.
pub fn parse_units(text: &str) -> Result<u64, QuantityError> {
    parse_scaled(text, 1)
}

fn parse_scaled(text: &str, scale: u128) -> Result<u64, QuantityError> {
    let syntax = || QuantityError::Syntax(text.chars().take(40).collect());
    let range = || QuantityError::Range(text.chars().take(40).collect());
    if text.starts_with('-') {
        return Err(QuantityError::Negative(text.chars().take(40).collect()));
    }
    let body = text.strip_prefix('+').unwrap_or(text);
    let digits_end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
    let (number, suffix) = body.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty())
        || fraction.contains('.')
        || fraction.len() > FRACTION_DIGITS_MAX
    {
        return Err(syntax());
    }
    // The amount is mantissa / 10^fraction.len() x numerator / denominator of the suffix.
    let digits = format!("{whole}{fraction}");
    let mantissa: u128 = digits.parse().map_err(|_| range())?;
    let (numerator, denominator) = suffix_factor(suffix).ok_or_else(syntax)?;
    let below = 10u128.pow(fraction.len() as u32).checked_mul(denominator).ok_or_else(range)?;
    let above = mantissa.checked_mul(numerator).and_then(|v| v.checked_mul(scale)).ok_or_else(range)?;
    let value = above.div_ceil(below);
    if value > i64::MAX as u128 { Err(range()) } else { Ok(value as u64) }
}

fn suffix_factor(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1u128 << (10 * power), 1));
    let decimal = |power: u32| Some((10u128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            match power {
                0..=18 => decimal(power as u32),
                -9..=-1 => Some((1, 10u128.pow(power.unsigned_abs()))),
                _ => None,
            }
        }
    }
}

/// Prints thousandths of a unit as Kubernetes would: `1500` is `1500m`, `2000` is `2`.
#[must_use]
pub fn format_millis(millis: u64) -> String {
    if millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{millis}m") }
}

/// Prints bytes with the largest binary suffix that divides them: `134217728` is `128Mi`.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    const SUFFIXES: [(&str, u32); 6] =
        [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    for (suffix, shift) in SUFFIXES {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_kubernetes_reads() {
        let check = |text: &str, millis: u64| assert_eq!(parse_millis(text), Ok(millis), "{text}");
        check("0", 0);
        check("1", 1000);
        check("500m", 500);
        check("0.5", 500);
        check(".5", 500);
        check("1.", 1000);
        check("2e3", 2_000_000);
        check("1n", 1);
        assert_eq!(parse_units("1.5Gi"), Ok(3 << 29));
        assert_eq!(parse_units("100M"), Ok(100_000_000));
        assert_eq!(parse_units("1m"), Ok(1), "a fraction of a byte rounds up");
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for bad in ["", "x", "1x", "1.2.3", "1 Gi", "Gi", "1e99", "1.0000000001"] {
            assert!(matches!(parse_millis(bad), Err(QuantityError::Syntax(_))), "{bad}");
        }
        assert!(matches!(parse_units("-1"), Err(QuantityError::Negative(_))));
        assert!(matches!(parse_units("9Ei"), Err(QuantityError::Range(_))));
        assert!(matches!(parse_units(&"9".repeat(60)), Err(QuantityError::Range(_))));
    }

    proptest! {
        #[test]
        fn printing_then_parsing_is_the_identity(value in 0u64..(1 << 50)) {
            prop_assert_eq!(parse_units(&format_bytes(value)), Ok(value));
            prop_assert_eq!(parse_millis(&format_millis(value)), Ok(value));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}") {
            let _ = parse_millis(&text);
            let _ = parse_units(&text);
        }
    }
}
