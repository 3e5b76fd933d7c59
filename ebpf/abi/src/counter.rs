//! What the programs count, per CPU.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $index:literal, $label:literal;)*) => {
        /// Index into `COUNTERS`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Counter { $($(#[$doc])* $name = $index,)* }

        impl Counter {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Stable name, for metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

counters! {
    /// Connections that were sent to a slot.
    Captured = 0, "captured";
    /// Connections of managed cgroups that went where they asked.
    Passed = 1, "passed";
    /// Connections that a verdict refused.
    Refused = 2, "refused";
    /// `require`: refused since no worker beats.
    NoWorkerRefused = 3, "no_worker_refused";
    /// `permissive`: passed since no worker beats.
    NoWorkerPassed = 4, "no_worker_passed";
    /// Refused since a map had no room, or a slot was empty.
    NoRoom = 5, "no_room";
    /// Claims filed before the SYN.
    Claimed = 6, "claimed";
    /// Claims that could not be filed; the daemon refuses such a connection.
    ClaimLost = 7, "claim_lost";
    /// Delivered connections whose server socket got its true client.
    Delivered = 8, "delivered";
    /// Delivered connections for which something could not be filed.
    DeliveryLost = 9, "delivery_lost";
    /// TCP packets towards a `require` workload that the guard dropped.
    IngressDropped = 10, "ingress_dropped";
    /// TCP packets from a `require` workload that the guard dropped.
    EgressDropped = 11, "egress_dropped";
    /// Connections and packets of the daemon's own cgroup that the guard dropped.
    DaemonDropped = 12, "daemon_dropped";
    /// Packets of `require` workloads other than TCP, which pass.
    OtherPassed = 13, "other_passed";
    /// bind() calls for a port that is kept for the daemon.
    BindRefused = 14, "bind_refused";
    /// Events that found the ring buffer full.
    EventsLost = 15, "events_lost";
    /// Packets of probes towards a port that their `require` workload does not declare.
    ProbeDropped = 16, "probe_dropped";
    /// Captured connections that ended without an answer to their SYN.
    Unanswered = 17, "unanswered";
    /// Captured connections that ended before a SYN could leave.
    Unsent = 18, "unsent";
    /// connect() calls that failed by a refusal that the daemon had learnt.
    RefusedAgain = 19, "refused_again";
    /// connect() calls of a workload that had too many under way already.
    QuotaRefused = 20, "quota_refused";
    /// Captured connections that their clients closed before the daemon had them.
    LeftEarly = 21, "left_early";
    /// SYNs of workloads that had their share of a worker's accept queue already: TCP repeats them.
    Held = 22, "held";
    /// TCP packets of connections that are no more, which found a listener of a `require` workload.
    StrayDropped = 23, "stray_dropped";
}

impl Counter {
    /// How many there are: the capacity of `COUNTERS`.
    pub const COUNT: u32 = Self::StrayDropped as u32 + 1;
}

#[cfg(test)]
mod tests {
    use super::Counter;

    #[test]
    fn indices_are_dense_and_in_order() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
    }
}
