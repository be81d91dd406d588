//! Users and their wallets.

use fanfare::broker::UserChange;

use crate::backend::Backend;

fn wallet(wallet: &str) -> UserChange {
    UserChange {
        wallet: Some(wallet.into()),
        nickname: None,
    }
}

pub async fn a_wallet_has_one_user(backend: &dyn Backend) {
    let opened = backend.open().await;
    assert_eq!(opened.store.user_by_wallet("w").await.unwrap(), None);
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let store = opened.store.clone();
            tokio::spawn(async move { store.provision_user("w").await.unwrap() })
        })
        .collect();
    let mut users = Vec::new();
    for task in tasks {
        users.push(task.await.unwrap());
    }
    assert!(users.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(users[0].wallet.as_deref(), Some("w"));
    assert!(!users[0].id.is_empty());
    let other = opened.store.provision_user("W").await.unwrap();
    assert_ne!(other.id, users[0].id);
    opened.close().await;
    let opened = backend.open().await;
    assert_eq!(opened.store.provision_user("w").await.unwrap(), users[0]);
    assert_eq!(
        opened.store.user_by_wallet("w").await.unwrap().as_ref(),
        Some(&users[0])
    );
    assert_eq!(
        opened.store.user(&users[0].id).await.unwrap().as_ref(),
        Some(&users[0])
    );
    opened.close().await;
}

pub async fn a_wallet_moves_to_its_new_owner(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &opened.store;
    let former = store.provision_user("w").await.unwrap();
    let owner = store.put_user("app-1", wallet("w")).await.unwrap();
    assert_eq!(owner.wallet.as_deref(), Some("w"));
    assert_eq!(
        store.user_by_wallet("w").await.unwrap().unwrap().id,
        "app-1"
    );
    assert_eq!(store.user(&former.id).await.unwrap().unwrap().wallet, None);
    assert_eq!(store.provision_user("w").await.unwrap().id, "app-1");
    // A user who takes another wallet lets go of the old one.
    store.put_user("app-1", wallet("w2")).await.unwrap();
    assert_eq!(store.user_by_wallet("w").await.unwrap(), None);
    assert_eq!(
        store.user_by_wallet("w2").await.unwrap().unwrap().id,
        "app-1"
    );
    // The former owner's later change does not bring it back.
    store.put_user(&former.id, wallet("w3")).await.unwrap();
    assert_eq!(
        store.user_by_wallet("w2").await.unwrap().unwrap().id,
        "app-1"
    );
    opened.close().await;
}

pub async fn a_change_leaves_the_rest(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &opened.store;
    assert_eq!(store.user("a\0b").await.unwrap(), None);
    let made = store.put_user("a\0b", wallet("w")).await.unwrap();
    let change = UserChange {
        wallet: None,
        nickname: Some("Ännchen".into()),
    };
    let named = store.put_user("a\0b", change).await.unwrap();
    assert_eq!(named.wallet.as_deref(), Some("w"));
    assert_eq!(named.nickname.as_deref(), Some("Ännchen"));
    assert_eq!(named.created_at_ms, made.created_at_ms);
    let same = store.put_user("a\0b", UserChange::default()).await.unwrap();
    assert_eq!(same, named);
    assert_eq!(store.user("a\0b").await.unwrap(), Some(named));
    assert_eq!(store.user("a").await.unwrap(), None);
    opened.close().await;
}
