//! What the default exception handler writes, seen by the thread that makes it write.

use crate::support::LogCapture;

/// Begins to collect what the calling thread logs. There is one logger in the process, that of [`LogCapture`].
pub(crate) fn captured_log() -> LogCapture {
    LogCapture::start()
}
