//! A peer, a path or a directory that is hostile costs availability at most: whatever
//! it does is refused with a cause of its own, counted, and harms no flow that is there.
//!
//! ```text
//!  client ──► kedged a ═══════ link ═══════ kedged b ──► load
//!                  ╚══ carriers ══ path ══════╝ ▲  ▲
//!                                  hostile ─────┘  │
//!  garbage, forgeries: node a's host ───────────────┘
//! ```
//!
//! | hostile act | shown by |
//! | --- | --- |
//! | replayed numbers | `bytes_that_were_said_before_are_said_in_vain`; all cores at once: `sixteen_threads_with_one_replayed_flight_get_one_delivery` |
//! | reused numbers, with another header or record | `a_flight_is_of_one_link_suite_epoch_and_number`, `every_changed_byte_of_a_flight_is_refused_and_leaves_it_takeable`; that we reuse none: the logs of xtask/tests/deaths |
//! | unknown link, forged or reflected opening, garbage | `a_carrier_that_is_none_of_ours_is_refused_and_harms_none` |
//! | forged `unknown link`, RST or FIN at every byte | `a_carrier_ended_by_the_path_at_any_byte_is_an_error_and_nothing_else` |
//! | a changed byte at every offset | `every_changed_byte_of_a_flight_is_refused_and_leaves_it_takeable` |
//! | truncated frames at every offset | `a_frame_whose_value_is_cut_anywhere_is_refused`, `a_frame_cut_anywhere_waits_for_more`, `record_0_cut_anywhere_or_over_its_limit_is_refused`, `a_flight_cut_anywhere_is_refused` |
//! | oversize frames, unknown critical fields | `whoever_is_no_honest_node_gets_no_link_and_harms_none`, `an_oversized_frame_is_refused_by_its_header_alone`, `an_unknown_field_is_skipped_unless_it_is_critical` |
//! | wrong trust domain, unknown CA, expired, another node's or a workload's certificate, none | `whoever_is_no_honest_node_gets_no_link_and_harms_none` |
//! | another node in the place of the one dialled | `a_node_that_answers_in_anothers_place_gets_no_link` |
//! | classical-only peer, TLS 1.2, other protocol | `whoever_is_no_honest_node_gets_no_link_and_harms_none` |
//! | offered list stripped or reordered | `whoever_is_no_honest_node_gets_no_link_and_harms_none` |
//! | simultaneous opens in all orders, with loss | `exactly_one_link_is_left_the_same_at_both_ends_and_no_flow_is_lost` |
//! | a directory that lags or lies | `a_source_that_the_other_directory_has_elsewhere_or_nowhere_is_refused`, `another_instance_of_the_destination_is_stale`, `a_pod_that_only_its_own_node_knows_to_be_gone_is_refused`, `what_a_directory_lacks_for_a_while_works_once_it_is_there` |
//! | a peer that would use us as a relay | `a_daemon_is_no_relay_to_loopback_link_local_metadata_or_hosts` |
//! | 30,000 strangers: the share of each | `a_flood_takes_places_of_its_own_source_only`, `many_sources_elsewhere_take_nothing_from_a_node`, `a_flood_is_counted_and_told_a_few_times_a_second`; beside half handshakes and silent ones: `every_flow_opens_while_strangers_flood_the_peer_port` |
//!
//! Counters are those of `kedge status`: `links.failed.*`, `strangers.*`, `refused.*`.

mod carriers;
mod counted;
mod directories;
mod flood;
mod peers;
