//! What only the model suites ask: they watch the core from below, as hardware would.

use super::Vm;
use crate::addr::FrameId;
use crate::frame::Kind;
use crate::machine::Machine;

impl<M: Machine> Vm<M> {
    /// Is `frame` in nobody's use? An MMU that still reaches such a frame has a stale translation.
    #[doc(hidden)]
    #[must_use]
    pub fn is_free(&self, frame: FrameId) -> bool {
        matches!(self.memory.record(frame).kind(), Kind::Free | Kind::Cached | Kind::Absent)
    }
}
