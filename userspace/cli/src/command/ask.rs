//! Questions to the daemon.

use super::print;
use crate::arguments::{Arguments, EventArguments, ExplainArguments};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::render;
use kedge_api::{Event, Explanation, Flows, Links, Sockets, Status, path};
use kedge_policy::Request;
use std::io::Write;

pub fn status(arguments: &Arguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let status: Status = Client::new(arguments.socket())?.get(path::STATUS)?;
    print(arguments, out, &status, render::status)?;
    Ok(Exit::Done)
}

pub fn links(arguments: &Arguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let links: Links = Client::new(arguments.socket())?.get(path::LINKS)?;
    print(arguments, out, &links, render::links)?;
    Ok(Exit::Done)
}

pub fn flows(arguments: &Arguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let flows: Flows = Client::new(arguments.socket())?.get(path::FLOWS)?;
    print(arguments, out, &flows, render::flows)?;
    if flows.truncated {
        eprintln!("kedge: there are more flows than the daemon lists at once");
    }
    Ok(Exit::Done)
}

pub fn sockets(arguments: &Arguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let sockets: Sockets = Client::new(arguments.socket())?.get(path::SOCKETS)?;
    print(arguments, out, &sockets, render::sockets)?;
    if sockets.truncated {
        eprintln!("kedge: there are more such sockets than the daemon lists at once");
    }
    if sockets.unseen > 0 {
        let unseen = sockets.unseen;
        eprintln!("kedge: {unseen} processes or cgroups could not be looked at");
    }
    Ok(Exit::Done)
}

pub fn events(
    arguments: &Arguments,
    which: &EventArguments,
    follow: bool,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let since = which
        .since
        .map_or(String::new(), |number| format!("&since={number}"));
    let query = format!("{}?follow={follow}{since}", path::EVENTS);
    Client::new(arguments.socket())?.get_lines(&query, |line| {
        let event: Event = serde_json::from_slice(line).map_err(Failure::Answer)?;
        let text = if arguments.json {
            render::json_line(&event)
        } else {
            render::event(&event)
        };
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(Failure::Output)
    })?;
    Ok(Exit::Done)
}

pub fn explain(
    arguments: &Arguments,
    what: &ExplainArguments,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let ExplainArguments {
        source,
        destination,
        port,
        policies,
    } = what;
    let explanation: Explanation = match policies {
        Some(folder) => kedge_policy::load(folder)?.explain(&Request {
            source,
            destination,
            port: *port,
        }),
        // A SPIFFE ID has no character that a query would have to escape.
        None => Client::new(arguments.socket())?.get(&format!(
            "{}?source={source}&destination={destination}&port={port}",
            path::POLICY_EXPLAIN
        ))?,
    };
    print(arguments, out, &explanation, render::explanation)?;
    Ok(if explanation.allowed {
        Exit::Done
    } else {
        Exit::No
    })
}
