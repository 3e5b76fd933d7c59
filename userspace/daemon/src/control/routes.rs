//! The capture ranges are local to the node: `ip route add local RANGE dev lo`. A connection to
//! one of their addresses ends at a worker's listener, whatever namespace it comes from.

use crate::config::Capture;
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder, new_connection};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The kernel's table of local addresses, RT_TABLE_LOCAL (rtnetlink(7)).
const TABLE_LOCAL: u32 = 255;
/// The loopback device is the first one of every network namespace.
const LOOPBACK: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error("open rtnetlink socket")]
    Socket(#[from] io::Error),
    #[error("add local route {range}: kedged needs CAP_NET_ADMIN")]
    Add {
        range: String,
        source: rtnetlink::Error,
    },
}

/// Adds both routes; the ones that are there already stay. They outlive the daemon on purpose:
/// without them, captured connections would leave the node while it restarts.
pub async fn add_capture_routes(capture: &Capture) -> Result<(), RouteError> {
    let (connection, handle, _) = new_connection()?;
    let served = tokio::spawn(connection);
    let result = add_both(&handle, capture).await;
    served.abort();
    result
}

async fn add_both(handle: &Handle, capture: &Capture) -> Result<(), RouteError> {
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(capture.ipv4.network(), capture.ipv4.prefix_len())
        .scope(RouteScope::Host)
        .kind(RouteType::Local)
        .table_id(TABLE_LOCAL)
        .output_interface(LOOPBACK)
        .build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(capture.ipv6.network(), capture.ipv6.prefix_len())
        .kind(RouteType::Local)
        .table_id(TABLE_LOCAL)
        .output_interface(LOOPBACK)
        .build();
    for (range, route) in [
        (capture.ipv4.to_string(), v4),
        (capture.ipv6.to_string(), v6),
    ] {
        let added = handle.route().add(route).replace().execute().await;
        added.map_err(|source| RouteError::Add { range, source })?;
    }
    Ok(())
}
