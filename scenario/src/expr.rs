//! Values: numbers, names and what is computed of them.

use crate::Reason;

/// How two values are joined. Binding grows in the order given here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `|`
    Or,
    /// `^`
    Xor,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `<<`
    Shl,
}

/// A value of a step. Written as one word without spaces: `0x1000+0x20*n`, `LBR|BTF`, `depth-1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// A number, or a named bit.
    Number(u64),
    /// Number of entries of the device at that moment.
    Depth,
    /// Count of a repeated step, from 0.
    N,
    /// Two values joined.
    Join(Operator, Box<Expr>, Box<Expr>),
}

/// What [`Expr::eval`] takes the names from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    pub(crate) depth: u64,
    pub(crate) n: u64,
}

const LEVELS: [&[(&str, Operator)]; 4] = [
    &[("|", Operator::Or), ("^", Operator::Xor)],
    &[("+", Operator::Add), ("-", Operator::Sub)],
    &[("*", Operator::Mul)],
    &[("<<", Operator::Shl)],
];

impl Expr {
    /// Reads one word; `bit` gives the value of a named bit.
    pub(crate) fn parse(word: &str, bit: &dyn Fn(&str) -> Option<u64>) -> Result<Self, Reason> {
        level(word, 0, bit).ok_or_else(|| Reason::BadValue(word.to_owned()))
    }

    /// The value, or `None` if it does not fit in 64 bits.
    pub(crate) fn eval(&self, scope: Scope) -> Option<u64> {
        match self {
            Self::Number(value) => Some(*value),
            Self::Depth => Some(scope.depth),
            Self::N => Some(scope.n),
            Self::Join(operator, left, right) => {
                let (left, right) = (left.eval(scope)?, right.eval(scope)?);
                match operator {
                    Operator::Or => Some(left | right),
                    Operator::Xor => Some(left ^ right),
                    Operator::Add => left.checked_add(right),
                    Operator::Sub => left.checked_sub(right),
                    Operator::Mul => left.checked_mul(right),
                    Operator::Shl => {
                        let by = u32::try_from(right).ok().filter(|by| *by < 64)?;
                        (left << by >> by == left).then_some(left << by)
                    }
                }
            }
        }
    }
}

/// Splits at the last operator of a level: all of them bind to the left. The words are short, and
/// each level consumes its operators, so the recursion is bounded by the length of a line.
fn level(word: &str, at: usize, bit: &dyn Fn(&str) -> Option<u64>) -> Option<Expr> {
    let Some(operators) = LEVELS.get(at) else {
        return atom(word, bit);
    };
    let last = operators
        .iter()
        .filter_map(|(text, operator)| word.rfind(text).map(|place| (place, *text, *operator)))
        .max_by_key(|(place, _, _)| *place);
    let Some((place, text, operator)) = last else {
        return level(word, at + 1, bit);
    };
    let left = level(&word[..place], at, bit)?;
    let right = level(&word[place + text.len()..], at + 1, bit)?;
    Some(Expr::Join(operator, Box::new(left), Box::new(right)))
}

fn atom(word: &str, bit: &dyn Fn(&str) -> Option<u64>) -> Option<Expr> {
    match word {
        "depth" => return Some(Expr::Depth),
        "n" => return Some(Expr::N),
        _ => {}
    }
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return bit(word).map(Expr::Number);
    }
    let plain = word.replace('_', "");
    let value = match plain.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16)
        }
        Some(_) => return None,
        None => plain.parse(),
    };
    value.ok().map(Expr::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(word: &str) -> Option<u64> {
        let expr = Expr::parse(word, &|name| (name == "LBR").then_some(1)).ok()?;
        expr.eval(Scope { depth: 16, n: 3 })
    }

    #[test]
    fn products_bind_closer_than_sums_and_sums_closer_than_or() {
        assert_eq!(value("0x1000+0x20*n"), Some(0x1060));
        assert_eq!(value("LBR|1<<11"), Some(0x801));
        assert_eq!(value("0x803^1<<n"), Some(0x80b));
        assert_eq!(value("depth-1-n"), Some(12));
        assert_eq!(value("2*depth+1|4"), Some(37));
        assert_eq!(value("0xffff_8000_0000_1000"), Some(0xffff_8000_0000_1000));
    }

    #[test]
    fn values_that_do_not_fit_are_none() {
        for word in ["n-4", "1<<64", "3<<63", "0xffffffffffffffff+1"] {
            assert_eq!(value(word), None, "{word}");
        }
    }

    #[test]
    fn texts_that_are_no_values_are_refused() {
        for word in ["", "+", "1+", "|1", "0x", "0xg", "12a", "BTF", "1++2", "-1"] {
            assert!(
                Expr::parse(word, &|_| None).is_err(),
                "{word:?} was accepted"
            );
        }
    }
}
