//! The status of an execution and the transitions it may take. Pure; knows nothing of storage.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an execution stands. Finer causes are a [`Reason`](crate::Reason), never a new status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted and recorded; nothing of the script has executed.
    Starting,
    /// Dispatched to an executor; it may still wait for a worker thread.
    Running,
    /// The script returned, or exited with 0.
    Completed,
    /// The script failed, or could not be run.
    Failed,
    /// The run was cancelled and truly ended.
    Cancelled,
}

impl Status {
    /// Every status, in the order of a life.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Returns the word used in JSON, SQL and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns the status that `word` names, if any.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Returns whether no transition leaves this status.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Returns whether an execution may be recorded with this status from the start.
    ///
    /// `running` is allowed, since insert and dispatch are one commit when a place is free.
    #[must_use]
    pub const fn is_initial(self) -> bool {
        matches!(self, Self::Starting | Self::Running)
    }

    /// Returns whether an execution may go from this status to `to`.
    ///
    /// ```
    /// use automation_core::Status;
    /// assert!(Status::Starting.may_become(Status::Running));
    /// assert!(!Status::Starting.may_become(Status::Completed), "nothing ran");
    /// assert!(!Status::Completed.may_become(Status::Failed), "terminal");
    /// ```
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        match self {
            Self::Starting => matches!(to, Self::Running | Self::Failed | Self::Cancelled),
            Self::Running => to.is_terminal(),
            Self::Completed | Self::Failed | Self::Cancelled => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn transition_table_is_exactly_this() {
        use Status::{Cancelled, Completed, Failed, Running, Starting};
        let allowed = [
            (Starting, Running),
            (Starting, Failed),
            (Starting, Cancelled),
            (Running, Completed),
            (Running, Failed),
            (Running, Cancelled),
        ];
        for from in Status::ALL {
            for to in Status::ALL {
                assert_eq!(
                    from.may_become(to),
                    allowed.contains(&(from, to)),
                    "{from} -> {to}"
                );
            }
        }
    }

    #[test]
    fn nothing_leaves_a_terminal_status() {
        for from in Status::ALL
            .into_iter()
            .filter(|status| status.is_terminal())
        {
            assert!(
                Status::ALL.into_iter().all(|to| !from.may_become(to)),
                "{from}"
            );
        }
    }

    #[test]
    fn words_round_trip_and_match_serde() {
        for status in Status::ALL {
            assert_eq!(Status::from_word(status.as_str()), Some(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert_eq!(Status::from_word("Running"), None);
    }
}
