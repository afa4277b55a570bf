//! Impostors: nobody gets more than they should.

use std::time::Duration;

use packageserver::tls::authority::{Authority, Signed, Validity};
use reqwest::{Client, Identity, StatusCode};

use crate::cluster::kubeconfig_with_token;
use crate::installation::{Installation, Kind, NAMESPACE};
use crate::support::kubectl::Kubectl;

fn day() -> Validity {
    Validity::from_now(Duration::from_secs(24 * 60 * 60))
}

/// Returns a client that speaks to the server directly, not through the kube-apiserver.
fn direct(certificate: Option<&Signed>) -> Client {
    let mut builder = Client::builder().danger_accept_invalid_certs(true).no_proxy();
    if let Some(Signed { certificate, key }) = certificate {
        let identity = Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap();
        builder = builder.identity(identity);
    }
    builder.build().unwrap()
}

async fn impostors(kind: Kind) {
    let installation = Installation::start(kind).await;
    let cluster = &installation.cluster;
    let url = format!("https://127.0.0.1:{}/apis/core.rukpak.io/v1beta1/packages", installation.port());
    let ask = async |certificate: Option<&Signed>, headers: &[(&str, &str)]| {
        let request = headers
            .iter()
            .fold(direct(certificate).get(&url), |request, (name, value)| request.header(*name, *value));
        request.send().await.unwrap().status()
    };
    let root: &[(&str, &str)] = &[("X-Remote-User", "root"), ("X-Remote-Group", "system:masters")];

    // The front proxy is believed.
    let proxy = cluster.front_proxy().client("front-proxy-client", &[], day()).unwrap();
    assert_eq!(ask(Some(&proxy), root).await, StatusCode::OK);
    // Nobody else is: not without a certificate, not with one of another authority, not under another name.
    assert_eq!(ask(None, root).await, StatusCode::FORBIDDEN);
    let (other, _) = Authority::generate("other", day()).unwrap();
    let foreign = other.client("front-proxy-client", &[], day()).unwrap();
    assert_eq!(ask(Some(&foreign), root).await, StatusCode::UNAUTHORIZED);
    let misnamed = cluster.front_proxy().client("somebody", &[], day()).unwrap();
    assert_eq!(ask(Some(&misnamed), root).await, StatusCode::UNAUTHORIZED);
    let user = cluster.authority().client("mallory", &[], day()).unwrap();
    assert_eq!(
        ask(Some(&user), root).await,
        StatusCode::FORBIDDEN,
        "she is herself, whatever the headers say"
    );
    let admin = cluster.authority().client("admin", &["system:masters"], day()).unwrap();
    assert_eq!(ask(Some(&admin), &[]).await, StatusCode::OK);
    assert_eq!(ask(Some(&admin), &[("Impersonate-User", "mallory")]).await, StatusCode::BAD_REQUEST);

    // Tokens: one that is good, one that is not, one whose account is gone.
    let kubectl = installation.kubectl();
    kubectl.run("create namespace test");
    kubectl.run("create serviceaccount robot -n test");
    kubectl.run("create clusterrolebinding robots --clusterrole=view --serviceaccount=test:robot");
    let token = kubectl.run("create token robot -n test");
    let bearer = format!("Bearer {}", token.trim());
    assert_eq!(ask(None, &[("Authorization", &bearer)]).await, StatusCode::OK);
    assert_eq!(ask(None, &[("Authorization", "Bearer nonsense")]).await, StatusCode::UNAUTHORIZED);
    // What everybody may read who is somebody, and what not.
    let base = format!("https://127.0.0.1:{}", installation.port());
    for (path, status) in [("/apis", 200), ("/openapi/v2", 200), ("/version", 200), ("/metrics", 403)] {
        let request = direct(None).get(format!("{base}{path}")).header("Authorization", &bearer);
        assert_eq!(request.send().await.unwrap().status(), status, "{path}");
    }
    // A token that has expired, and the same one before it has.
    let uid = kubectl.run("get serviceaccount robot -n test -o jsonpath={.metadata.uid}");
    let now = k8s_openapi::jiff::Timestamp::now().as_second();
    for (expires, status) in [(now + 600, StatusCode::OK), (now - 60, StatusCode::UNAUTHORIZED)] {
        let bearer = format!("Bearer {}", cluster.token("test", "robot", &uid, expires));
        assert_eq!(ask(None, &[("Authorization", &bearer)]).await, status, "{}", expires - now);
    }
    let through = Kubectl::new(cluster.write_kubeconfig(
        "robot",
        &kubeconfig_with_token(cluster.port, cluster.authority().certificate(), token.trim()),
    ));
    through.run("get packages -A");
    kubectl.run("delete serviceaccount robot -n test");
    // A verdict is remembered for ten seconds, here and in the kube-apiserver.
    crate::support::eventually("the token to be refused", || async {
        (ask(None, &[("Authorization", &bearer)]).await == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;

    // Paths that are always allowed, and no others.
    for (path, status) in
        [("/readyz", 200), ("/livez", 200), ("/metrics", 403), ("/", 403), ("/openapi/v2", 403)]
    {
        let answer = direct(None).get(format!("{base}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
    // No secret in the logs.
    let logs = installation.logs();
    assert!(!logs.contains(token.trim()), "a token in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn c263_c266_c267_c268_c273_c277_c281_impostors_get_nothing() {
    impostors(Kind::Full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn impostors_get_nothing_from_the_small_installation() {
    impostors(Kind::Small).await;
}

async fn role_for_named_objects(kind: Kind) {
    let installation = Installation::start(kind).await;
    let kubectl = installation.kubectl();
    kubectl.run("create namespace test");
    for name in ["mine", "yours"] {
        let image = "127.0.0.1:1/no/such:image";
        kubectl.run_with("apply -f -", &crate::installation::catalog_source("test", name, image));
    }
    kubectl.run("create role one --verb=get,list,watch --resource=catalogsources.core.rukpak.io --resource-name=mine -n test");
    kubectl.run("create rolebinding one --role=one --user=olga -n test");
    let olga = Kubectl::new(installation.cluster.user("olga", &[]));
    olga.run("get catalogsource mine -n test");
    let listed = olga.run("get catalogsource -n test --field-selector=metadata.name=mine -o name");
    assert_eq!(listed.trim(), "catalogsource.core.rukpak.io/mine");
    for refused in [
        "get catalogsource yours -n test",
        "get catalogsource -n test",
        "get catalogsource -n test --field-selector=metadata.name=yours",
        "get --raw /apis/core.rukpak.io/v1beta1/namespaces/test/catalogsources?watch=1&fieldSelector=metadata.name%3Dyours",
        "get --raw /apis/core.rukpak.io/v1beta1/namespaces/test/catalogsources?watch=1",
        "get --raw /apis/core.rukpak.io/v1beta1/namespaces/test/catalogsources/mine/status",
        "delete catalogsource mine -n test",
    ] {
        let output = olga.try_run(refused, "");
        assert!(!output.success && output.stderr.contains("orbidden"), "{refused}: {output:?}");
    }
    // The kube-apiserver's own part of the installation has the narrow rights that it needs, and no others.
    let account = format!("system:serviceaccount:{NAMESPACE}:packageserver-apiserver");
    // One process that does all reads the pull secrets that CatalogSources name, too: one by one, by their names.
    let reads_secrets = if kind == Kind::Small { "yes" } else { "no" };
    for (verb, what, may) in [
        ("get", "secrets -n default", reads_secrets),
        ("list", "secrets", "no"),
        ("watch", "secrets -n default", "no"),
        ("create", "pods", "no"),
        ("delete", "namespaces", "no"),
    ] {
        let output = kubectl.try_run(&format!("auth can-i {verb} {what} --as={account}"), "");
        assert_eq!(output.stdout.trim(), may, "{verb} {what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c019_c274_a_role_for_named_objects_gives_those() {
    role_for_named_objects(Kind::Full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_for_named_objects_gives_those_on_the_small_installation() {
    role_for_named_objects(Kind::Small).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c227_each_user_has_so_many_watches_as_the_flag_says() {
    let installation = Installation::start_with(Kind::Small, &["--max-watches-per-user=2"]).await;
    let kubectl = installation.kubectl();
    for user in ["ann", "bob"] {
        kubectl.run(&format!("create clusterrolebinding {user} --clusterrole=view --user={user}"));
    }
    let client =
        |user: &str| direct(Some(&installation.cluster.authority().client(user, &[], day()).unwrap()));
    let (ann, bob) = (client("ann"), client("bob"));
    let url = format!("https://127.0.0.1:{}/apis/core.rukpak.io/v1beta1/packages", installation.port());
    let watch = async |client: &Client| client.get(format!("{url}?watch=1")).send().await.unwrap();
    crate::support::eventually("the bindings to hold", || async {
        let answers = [ann.get(&url).send().await.unwrap(), bob.get(&url).send().await.unwrap()];
        answers.iter().all(|answer| answer.status() == StatusCode::OK).then_some(())
    })
    .await;
    let open = [watch(&ann).await, watch(&ann).await, watch(&bob).await];
    assert!(open.iter().all(|answer| answer.status() == StatusCode::OK));
    assert_eq!(watch(&ann).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ann.get(&url).send().await.unwrap().status(), StatusCode::OK, "a list is no watch");
    drop(open);
    crate::support::eventually("a place", || async {
        (watch(&ann).await.status() == StatusCode::OK).then_some(())
    })
    .await;
}
