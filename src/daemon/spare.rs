//! A descriptor that is kept for the moment when there are no more.

use std::fs::File;
use std::io;

use contd_types::Shortage;

/// One descriptor in reserve: given up, it lets one caller in, who can then be
/// answered, and may delete what holds the others.
#[derive(Debug, Default)]
pub(crate) struct Spare(Option<File>);

impl Spare {
    /// Takes one, unless it is there, or there is none: then the next time.
    pub(crate) fn keep(&mut self) {
        if self.0.is_none() {
            self.0 = File::open("/dev/null").ok();
        }
    }

    /// Gives it up if that is why something failed; tells whether that helps.
    pub(crate) fn give_up(&mut self, error: &io::Error) -> bool {
        let is_short = matches!(Shortage::of(error), Some(Shortage::Descriptors | Shortage::OpenFiles));
        is_short && self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spare_is_given_up_once_and_only_for_a_lack_of_descriptors() {
        let mut spare = Spare::default();
        spare.keep();
        assert!(!spare.give_up(&io::ErrorKind::ConnectionAborted.into()));
        let short = io::Error::from(nix::errno::Errno::EMFILE);
        assert!(spare.give_up(&short) && !spare.give_up(&short));
        spare.keep();
        assert!(spare.give_up(&short));
    }
}
