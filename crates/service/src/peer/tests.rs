//! Names and their changing addresses, with real listeners behind them.

use std::sync::Mutex as StdMutex;

use tonic::{Code, Status};

use super::*;

/// A name server that says what it is told to say.
#[derive(Clone, Default)]
struct Names(Arc<StdMutex<Vec<SocketAddr>>>);

impl Names {
    fn say(&self, addresses: &[SocketAddr]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }

    fn peer(&self) -> Peer {
        let names = self.clone();
        let lookup: Lookup = Arc::new(move |host, port| {
            assert_eq!((host.as_str(), port), ("results.test", 7402));
            let said = names.0.lock().unwrap().clone();
            Box::pin(
                async move { if said.is_empty() { Err(io::Error::other("no such name")) } else { Ok(said) } },
            )
        });
        let endpoint = Endpoint::from_static("http://results.test:7402");
        Peer::with(vec![endpoint], ClientTls::default(), lookup).unwrap()
    }
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], 7402))
}

/// Where calls go, each of which stays under way.
async fn spread(peer: &Peer, calls: usize) -> (Vec<SocketAddr>, Vec<Picked>) {
    let mut picked = Vec::new();
    for _ in 0..calls {
        picked.push(peer.pick().await.unwrap());
    }
    let mut addresses: Vec<_> = picked.iter().map(Picked::address).collect();
    addresses.sort_unstable();
    (addresses, picked)
}

#[tokio::test]
async fn calls_go_to_the_replica_with_the_fewest_under_way() {
    let names = Names::default();
    let peer = names.peer();
    assert!(peer.pick().await.is_none(), "nobody knows where it is");
    names.say(&[address(1), address(2), address(3)]);
    let (addresses, mut picked) = spread(&peer, 6).await;
    assert_eq!(addresses, [1, 1, 2, 2, 3, 3].map(address));
    picked.retain(|picked| picked.address() != address(2));
    assert_eq!(spread(&peer, 2).await.0, [address(2), address(2)]);
}

#[tokio::test]
async fn addresses_come_and_go_with_the_name_and_calls_under_way_stay() {
    let names = Names::default();
    let peer = names.peer();
    names.say(&[address(1), address(2)]);
    let (_, picked) = spread(&peer, 4).await;
    names.say(&[address(2), address(3)]);
    peer.resolve().await;
    // The second is still the one with two calls under way.
    assert_eq!(spread(&peer, 2).await.0, [address(3), address(3)]);
    assert_eq!(picked.len(), 4);
    names.say(&[]);
    peer.resolve().await;
    assert_eq!(spread(&peer, 2).await.0.len(), 2, "what can't be resolved is where it was");
}

#[tokio::test]
async fn who_fails_rests_and_is_tried_again_when_nobody_is_left() {
    let names = Names::default();
    let peer = names.peer();
    names.say(&[address(1), address(2)]);
    let lost = Status::unavailable("");
    let (_, picked) = spread(&peer, 2).await;
    let first = picked.iter().find(|picked| picked.address() == address(1)).unwrap();
    assert!(first.ended(Some(&lost)) && peer.has_others());
    for _ in 0..5 {
        assert_eq!(peer.pick().await.unwrap().address(), address(2));
    }
    let second = picked.iter().find(|picked| picked.address() == address(2)).unwrap();
    // What the service itself refuses is no failure of the replica.
    assert!(!second.ended(Some(&crate::Error::invalid("a", "b").into())));
    assert!(!second.ended(Some(&crate::Error::overloaded().into())));
    assert!(second.ended(Some(&Status::new(Code::Unknown, "h2 broke"))));
    assert!(!peer.has_others());
    assert!(peer.pick().await.is_some());
    first.ended(None);
    assert_eq!(peer.pick().await.unwrap().address(), address(1));
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_has_the_name_resolved_at_once() {
    let names = Names::default();
    let peer = names.peer();
    names.say(&[address(1)]);
    let following = tokio::spawn(peer.clone().follow_names(Duration::from_secs(3600)));
    let picked = peer.pick().await.unwrap();
    names.say(&[address(2)]);
    picked.ended(Some(&Status::unavailable("")));
    while peer.pick().await.unwrap().address() != address(2) {
        // The clock stands still but for those who wait.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    following.abort();
}
