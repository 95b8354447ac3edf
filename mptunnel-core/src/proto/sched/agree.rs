// SPDX-License-Identifier: BSD-2-Clause
//! One policy for both directions: whoever set it last, at either end (PROTOCOL.md, "Settings").

use super::{Mode, Policy};

/// A policy as it travels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Setting {
    /// Which one: a higher number is a later one.
    pub seq: u32,
    /// Whether it was set at the server; of two with one number that of the client counts.
    pub by_server: bool,
    /// Whether it answers one.
    pub is_answer: bool,
    /// The code of the mode, one that this version may not know.
    pub mode: u8,
    /// The rest; its mode means nothing.
    pub policy: Policy,
}

/// What this end wants, what counts, and whether the other end knows it.
#[derive(Clone, Copy, Debug)]
pub struct Agreement {
    is_server: bool,
    own: Policy,
    seq: u32,
    by_server: bool,
    policy: Policy,
    told: bool,
    answer: bool,
}

impl Agreement {
    /// An end with this setting. One that is not the default counts as set on purpose.
    pub fn new(is_server: bool, own: Policy) -> Self {
        let seq = u32::from(own != Policy::default());
        Agreement {
            is_server,
            own,
            seq,
            by_server: is_server,
            policy: own,
            told: seq == 0,
            answer: false,
        }
    }

    /// The policy that counts.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What this end was told last by its own user.
    pub fn own(&self) -> &Policy {
        &self.own
    }

    /// Whether the other end has confirmed the policy that counts, or nobody set one.
    pub fn is_agreed(&self) -> bool {
        self.told
    }

    /// The user of this end sets a policy.
    pub fn set(&mut self, own: Policy) {
        (self.own, self.policy, self.by_server) = (own, own, self.is_server);
        (self.seq, self.told) = (self.seq.saturating_add(1), false);
    }

    /// The other end is a process that knows nothing. What the one before it wanted is over.
    pub fn on_new_peer(&mut self) {
        if self.by_server != self.is_server {
            *self = Agreement::new(self.is_server, self.own);
        }
        (self.told, self.answer) = (self.seq == 0, false);
    }

    /// The other end told its policy; `true` if another one counts from now on.
    pub fn on_setting(&mut self, setting: &Setting) -> bool {
        let Some(mode) = Mode::of_code(setting.mode) else { return false };
        self.answer |= !setting.is_answer;
        let (theirs, ours) = ((setting.seq, !setting.by_server), (self.seq, !self.by_server));
        if theirs < ours {
            self.told = false;
            return false;
        }
        self.told = true;
        let changes = theirs > ours;
        if changes {
            (self.seq, self.by_server) = (setting.seq, setting.by_server);
            let policy = Policy { mode, ..setting.policy };
            return std::mem::replace(&mut self.policy, policy) != policy;
        }
        false
    }

    /// What to tell with the next packet, if there is something to tell.
    pub fn to_tell(&mut self) -> Option<Setting> {
        let is_answer = std::mem::take(&mut self.answer);
        (is_answer || !self.told).then_some(Setting {
            seq: self.seq,
            by_server: self.by_server,
            // Whoever knows less has to answer in turn.
            is_answer: is_answer && self.told,
            mode: self.policy.mode.code(),
            policy: self.policy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: Mode) -> Policy {
        Policy { mode, ..Policy::default() }
    }

    /// Exchanges what there is to tell, at most ten times.
    fn exchange(client: &mut Agreement, server: &mut Agreement) -> u32 {
        let mut told = 0;
        for _ in 0..10 {
            if let Some(setting) = client.to_tell() {
                told += 1;
                server.on_setting(&setting);
            }
            if let Some(setting) = server.to_tell() {
                told += 1;
                client.on_setting(&setting);
            }
        }
        assert_eq!(client.policy(), server.policy());
        assert!(client.is_agreed() && server.is_agreed());
        told
    }

    #[test]
    fn both_ends_follow_whoever_has_a_setting_and_the_client_if_both_do() {
        for (client, server, counts) in [
            (Mode::Redundant, Mode::Redundant, Mode::Redundant),
            (Mode::Weighted, Mode::Redundant, Mode::Weighted),
            (Mode::Redundant, Mode::Fastest, Mode::Fastest),
            (Mode::Weighted, Mode::Fastest, Mode::Weighted),
        ] {
            let mut c = Agreement::new(false, policy(client));
            let mut s = Agreement::new(true, policy(server));
            let told = exchange(&mut c, &mut s);
            assert_eq!(c.policy().mode, counts, "{client:?} {server:?}");
            assert!(told <= 4, "{told}: it is settled and not told for ever");
        }
    }

    #[test]
    fn what_is_set_last_counts_at_whichever_end() {
        let mut c = Agreement::new(false, policy(Mode::Weighted));
        let mut s = Agreement::new(true, Policy::default());
        exchange(&mut c, &mut s);
        s.set(policy(Mode::Adaptive));
        exchange(&mut c, &mut s);
        assert_eq!(c.policy().mode, Mode::Adaptive);
        c.set(policy(Mode::Redundant));
        exchange(&mut c, &mut s);
        assert_eq!(s.policy().mode, Mode::Redundant);
    }

    #[test]
    fn an_older_setting_that_comes_late_changes_nothing() {
        let mut c = Agreement::new(false, policy(Mode::Weighted));
        let mut s = Agreement::new(true, Policy::default());
        let late = c.to_tell().unwrap();
        exchange(&mut c, &mut s);
        c.set(policy(Mode::Fastest));
        exchange(&mut c, &mut s);

        assert!(!s.on_setting(&late));
        exchange(&mut c, &mut s);
        assert_eq!(s.policy().mode, Mode::Fastest);
    }

    #[test]
    fn a_restarted_end_learns_it_again_and_what_it_wanted_before_is_over() {
        let mut c = Agreement::new(false, policy(Mode::Weighted));
        let mut s = Agreement::new(true, Policy::default());
        exchange(&mut c, &mut s);
        s = Agreement::new(true, Policy::default());
        c.on_new_peer();
        exchange(&mut c, &mut s);
        assert_eq!(s.policy().mode, Mode::Weighted);

        s.set(policy(Mode::Fastest));
        exchange(&mut c, &mut s);
        s = Agreement::new(true, policy(Mode::Adaptive));
        c.on_new_peer();
        exchange(&mut c, &mut s);
        assert_eq!(s.policy().mode, Mode::Weighted, "the client's own");
    }

    #[test]
    fn a_mode_of_a_later_version_is_not_followed_and_not_confirmed() {
        let mut c = Agreement::new(false, policy(Mode::Weighted));
        let mut s = Agreement::new(true, Policy::default());
        let unknown = Setting { mode: 200, ..c.to_tell().unwrap() };
        assert!(!s.on_setting(&unknown));
        assert_eq!((s.to_tell(), s.policy().mode), (None, Mode::Redundant));
    }
}
