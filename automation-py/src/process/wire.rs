//! Messages between us and the processes that we isolate scripts in: JSON, cut into packets of a socket that keeps
//! their bounds. The other half is `_wire.py`. Knows nothing of what the messages mean.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, send as send_packet, sendmsg, socketpair, sockopt,
};
use serde_json::Value;

/// Bytes of a message that go into one packet: the sockets' buffers are larger.
const PACKET_BYTES: usize = 60_000;
const BEGINS: u8 = 1;
const ENDS: u8 = 2;
/// Longest message that is taken: scripts may send what they like.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Time that the other end gets to take a packet; one that was stopped would hold us for ever.
const SEND_MAX: Duration = Duration::from_secs(1);

/// Returns two sockets that are connected: ours, and one to hand over.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_timeout(&ours, sockopt::Timeout::Send, Some(SEND_MAX))?;
    Ok((ours, theirs))
}

/// Sends a message.
pub(super) fn send(socket: &OwnedFd, message: &Value) -> Result<()> {
    let text = message.to_string();
    let mut parts = text.as_bytes().chunks(PACKET_BYTES).peekable();
    let mut mark = BEGINS;
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            mark |= ENDS;
        }
        let packet = [&[mark], part].concat();
        retry_on_intr(|| send_packet(socket, &packet, SendFlags::NOSIGNAL))?;
        mark = 0;
    }
    Ok(())
}

/// Sends what a child gets, which asks for one.
pub(super) fn send_descriptors(socket: &OwnedFd, descriptors: &[BorrowedFd<'_>; 4]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    let packet = [IoSlice::new(b"f")];
    retry_on_intr(|| sendmsg(socket, &packet, &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Asks who forks to end.
pub(super) fn send_end(socket: &OwnedFd) {
    // It may have ended before.
    let _ = send_packet(socket, b"q", SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// What a look at a socket finds.
#[derive(Debug)]
pub(super) enum Received {
    /// A message.
    Message(Value),
    /// Nothing, now.
    Nothing,
    /// The other end is gone.
    Gone,
}

/// Puts the packets of one socket together.
#[derive(Debug)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    packet: Box<[u8]>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            packet: vec![0; PACKET_BYTES + 1].into(),
        }
    }
}

impl Inbox {
    /// Returns the next message that has arrived; never waits. What is no message is passed over.
    pub(super) fn receive(&mut self, socket: &OwnedFd) -> Received {
        loop {
            let received =
                retry_on_intr(|| recv(socket, &mut self.packet[..], RecvFlags::DONTWAIT));
            let length = match received {
                Ok((0, _)) => return Received::Gone,
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => return Received::Nothing,
                Err(_) => return Received::Gone,
            };
            let mark = self.packet[0];
            if mark & BEGINS != 0 {
                self.bytes.clear();
            }
            if self.bytes.len() + length <= MESSAGE_BYTES_MAX {
                self.bytes.extend_from_slice(&self.packet[1..length]);
            }
            if mark & ENDS != 0
                && let Ok(message) = serde_json::from_slice(&self.bytes)
            {
                return Received::Message(message);
            }
        }
    }

    /// Waits up to `limit` for a message; `None` when none comes.
    pub(super) fn wait(&mut self, socket: &OwnedFd, limit: Duration) -> Option<Value> {
        let end = Instant::now() + limit;
        loop {
            match self.receive(socket) {
                Received::Message(message) => return Some(message),
                Received::Gone => return None,
                Received::Nothing => {}
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let mut polled = [PollFd::new(socket, PollFlags::IN)];
            let _ = poll(&mut polled, Some(&timespec(left)));
        }
    }
}

/// Returns a duration as the kernel takes it, a day at most.
pub(super) fn timespec(duration: Duration) -> Timespec {
    let duration = duration.min(Duration::from_secs(24 * 60 * 60));
    Timespec {
        tv_sec: duration.as_secs().cast_signed(),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;
    use rustix::net::{SendFlags, send as send_packet};
    use serde_json::json;

    use super::{Inbox, Received, pair, send};

    #[test]
    fn what_was_interrupted_is_dropped() {
        let (ours, theirs) = pair().unwrap();
        let packets: [&[u8]; 4] = [b"\x01[1, ", b"\x03[2]", b"\x03no JSON", b"\x03[3]"];
        for packet in packets {
            send_packet(ours.as_fd(), packet, SendFlags::empty()).unwrap();
        }
        let mut inbox = Inbox::default();
        for expected in [json!([2]), json!([3])] {
            let Received::Message(message) = inbox.receive(&theirs) else {
                panic!("no message")
            };
            assert_eq!(message, expected);
        }
        assert!(matches!(inbox.receive(&theirs), Received::Nothing));
        drop(ours);
        assert!(matches!(inbox.receive(&theirs), Received::Gone));
    }

    proptest! {
        #[test]
        fn messages_arrive_whole_and_in_order(
            messages in prop::collection::vec((0_usize..3, 0_usize..70_000), 1..3),
        ) {
            let (ours, theirs) = pair().unwrap();
            let mut inbox = Inbox::default();
            for (packets, more) in messages {
                let message = json!("x".repeat(packets * 60_000 / 2 + more));
                send(&ours, &message).unwrap();
                let Received::Message(received) = inbox.receive(&theirs) else {
                    panic!("no message")
                };
                prop_assert_eq!(received, message);
            }
        }
    }
}
