//! Parser for comma-separated lists on a command line: `a,b,c`. It ignores spaces around an item
//! and empty items, such as after a trailing comma, because scripts that build lists produce them.

use std::str::FromStr;

/// The items of one list, in order; may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List<T>(Vec<T>);

impl<T: FromStr> FromStr for List<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// Returns the items of all lists of a flag that may be given several times.
pub(crate) fn all_of<T: Clone>(lists: &[List<T>]) -> Vec<T> {
    lists.iter().flat_map(|list| list.0.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_empty_items_mean_nothing_and_a_wrong_item_is_wrong() {
        let list = |text: &str| text.parse::<List<u8>>().map(|List(items)| items);
        for (text, items) in
            [("1,2", vec![1, 2]), (" 1 , 2,", vec![1, 2]), (",1", vec![1]), ("", vec![]), (" , ,", vec![])]
        {
            assert_eq!(list(text), Ok(items), "{text:?}");
        }
        assert!(list("1,x").is_err() && list("1 2").is_err());
    }
}
