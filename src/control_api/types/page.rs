//! Lists in pages.

use serde::{Deserialize, Serialize};

use super::List;
use crate::control_api::ApiError;

/// Entries of a page at most, and when nothing is said.
pub const MAX_PAGE: usize = 1000;

/// The parameters of a list without filters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "control-api", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "control-api", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Entries at most, 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "control-api", param(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Which part of a list is asked for. Lists are sorted by name, and a page goes on behind a name, so
/// what is added or removed meanwhile neither doubles nor hides another entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Entries at most.
    pub limit: usize,
    /// Only what comes behind this name.
    pub after: Option<String>,
}

impl Page {
    /// Everything at once, for embedders.
    pub const ALL: Self = Self { limit: usize::MAX, after: None };

    /// Checks the parameters `limit` (1 to [`MAX_PAGE`]) and `after` (`next` of the page before).
    ///
    /// # Errors
    /// `invalid`, with the field.
    pub fn new(limit: Option<u32>, after: Option<String>) -> Result<Self, ApiError> {
        let limit = limit.map_or(Ok(MAX_PAGE), usize::try_from).unwrap_or(0);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("must be 1 to {MAX_PAGE}")));
        }
        if after.as_ref().is_some_and(|after| after.len() > 256) {
            return Err(ApiError::invalid("after", "is not what \"next\" of a page said"));
        }
        Ok(Self { limit, after })
    }

    /// True for a name that comes behind the page before.
    pub fn is_ahead(&self, name: &str) -> bool {
        self.after.as_deref().is_none_or(|after| name > after)
    }

    /// The page out of `sorted` entries that are ahead; there must be one more than fits, if there
    /// is one. `name` gives what they are sorted by.
    pub fn cut<T>(&self, event_id: u64, mut sorted: Vec<T>, name: impl Fn(&T) -> &str) -> List<T> {
        let more = sorted.len() > self.limit;
        sorted.truncate(self.limit);
        let next = sorted.last().filter(|_| more).map(|last| name(last).to_owned());
        List { items: sorted, next, event_id }
    }
}

/// Whether a name fits a pattern, in which `*` stands for any characters; without one it must be the
/// name itself.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| name.strip_prefix(head)) else {
        return false;
    };
    let Some(tail) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pages_are_complete_and_end() {
        let all: Vec<String> = (10..45).map(|n| format!("r{n}")).collect();
        let mut page = Page::new(Some(10), None).unwrap();
        let mut seen = Vec::new();
        for _ in 0..4 {
            let ahead = all.iter().filter(|name| page.is_ahead(name)).cloned().collect();
            let list = page.cut(7, ahead, String::as_str);
            assert_eq!(list.event_id, 7);
            seen.extend(list.items);
            let Some(next) = list.next else { break };
            page.after = Some(next);
        }
        assert_eq!(seen, all);
        assert_eq!(Page::ALL.cut(0, all, String::as_str).next, None);
    }

    #[test]
    fn a_page_that_is_just_full_is_the_last_one() {
        let page = Page::new(Some(2), None).unwrap();
        assert_eq!(page.cut(0, vec!["a", "b"], |name| name).next, None);
        assert_eq!(page.cut(0, vec!["a", "b", "c"], |name| name).next.as_deref(), Some("b"));
    }

    #[test]
    fn limits_out_of_range_are_refused_with_the_field() {
        for limit in [0, 1001, u32::MAX] {
            assert_eq!(Page::new(Some(limit), None).unwrap_err().field.as_deref(), Some("limit"));
        }
        let long = Page::new(None, Some("x".repeat(257))).unwrap_err();
        assert_eq!(long.field.as_deref(), Some("after"));
        assert_eq!(Page::new(None, None).unwrap().limit, MAX_PAGE);
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, matches) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "x", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*c", "abc", true),
            ("a*a", "a", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
            ("**", "ab", true),
            ("", "a", false),
            ("", "", true),
        ] {
            assert_eq!(name_matches(pattern, name), matches, "{pattern} {name}");
        }
    }

    fn after<'a>(names: &'a BTreeSet<String>, page: &Page) -> impl Iterator<Item = &'a String> {
        let from = page.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        names.range::<str, _>((from, Bound::Unbounded)).take(page.limit + 1)
    }

    proptest! {
        /// Names come and go between the pages: what is there all the time is seen exactly once,
        /// and nothing is seen twice.
        #[test]
        fn pages_neither_skip_nor_repeat_while_others_come_and_go(
            start in prop::collection::btree_set("[a-d][a-d0-9.-]{0,3}", 0..60),
            limit in 1..9_u32,
            changes in prop::collection::vec(
                prop::collection::vec(("[a-d][a-d0-9.-]{0,3}", any::<bool>()), 0..6), 0..80),
        ) {
            let mut names = start;
            let mut always = names.clone();
            let mut seen: BTreeMap<String, u32> = BTreeMap::new();
            let mut page = Page::new(Some(limit), None).unwrap();
            let mut changes = changes.into_iter();
            loop {
                let ahead: Vec<String> = after(&names, &page).cloned().collect();
                prop_assert!(ahead.iter().all(|name| page.is_ahead(name)));
                let list = page.cut(0, ahead, String::as_str);
                prop_assert!(list.items.is_sorted());
                for name in list.items {
                    *seen.entry(name).or_default() += 1;
                }
                let Some(next) = list.next else { break };
                page = Page::new(Some(limit), Some(next)).unwrap();
                for (name, insert) in changes.next().unwrap_or_default() {
                    if insert {
                        names.insert(name);
                    } else {
                        names.remove(&name);
                        always.remove(&name);
                    }
                }
            }
            for name in &always {
                prop_assert_eq!(seen.get(name), Some(&1), "{}", name);
            }
            prop_assert!(seen.values().all(|times| *times == 1));
        }
    }
}
