//! What the control plane is told of the machine's images: all of them, with the first heartbeat of a session, with the next one
//! after they changed, and again now and then, because nobody says that it arrived.

use bulkhead_types::NodeImages;

/// How long what was told may be lost.
const REPEAT_MS: u64 = 60_000;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImageNews {
    /// What the host said last; `None` before it said anything: then nobody is told anything.
    present: Option<NodeImages>,
    /// When that was told in this session.
    told_at_ms: Option<u64>,
}

impl ImageNews {
    /// Takes over what the host has.
    pub(crate) fn set(&mut self, images: NodeImages) {
        if self.present.as_ref() != Some(&images) {
            *self = Self { present: Some(images), told_at_ms: None };
        }
    }

    /// A new session.
    pub(crate) fn forget_reports(&mut self) {
        self.told_at_ms = None;
    }

    /// What a heartbeat says that is sent now.
    pub(crate) fn take_report(&mut self, now_ms: u64) -> Option<NodeImages> {
        let is_due = self.told_at_ms.is_none_or(|told| now_ms.saturating_sub(told) >= REPEAT_MS);
        let present = self.present.as_ref().filter(|_| is_due)?;
        self.told_at_ms = Some(now_ms);
        Some(present.clone())
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::NodeImage;

    use super::*;

    #[test]
    fn images_are_told_when_they_change_and_now_and_then() {
        let images = |digest: &str| NodeImages {
            images: vec![NodeImage { digest: digest.into(), names: Vec::new(), size_bytes: 1 }],
        };
        let mut news = ImageNews::default();
        assert_eq!(news.take_report(0), None, "before the host was looked at");
        news.set(images("a"));
        assert_eq!(news.take_report(1), Some(images("a")));
        news.set(images("a"));
        assert_eq!(news.take_report(2), None);
        news.set(images("b"));
        assert_eq!(news.take_report(3), Some(images("b")));
        assert_eq!(news.take_report(2 + REPEAT_MS), None);
        assert_eq!(news.take_report(3 + REPEAT_MS), Some(images("b")), "it may have been lost");
        news.forget_reports();
        assert_eq!(news.take_report(4 + REPEAT_MS), Some(images("b")), "another session");
        news.set(NodeImages::default());
        assert_eq!(
            news.take_report(5 + REPEAT_MS),
            Some(NodeImages::default()),
            "that there are none is told, too"
        );
    }
}
