//! Things with names.

/// Something that is looked up by name.
pub trait Named {
    /// The name that it is listed by.
    fn name(&self) -> &str;

    /// Whether `text` means it: its name in any case, unless it has other names as well.
    fn is_called(&self, text: &str) -> bool {
        self.name().eq_ignore_ascii_case(text)
    }
}

/// The first item that `text` means.
#[must_use]
pub fn find<'a, T: Named>(items: &'a [T], text: &str) -> Option<&'a T> {
    items.iter().find(|item| item.is_called(text))
}
