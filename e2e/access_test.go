package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// puller is a user of entrepot's own, who may have all that is in library/.
var puller = testbed.Credentials{Username: "puller", Password: "an-easy-one"}

// guarded is a configuration by which entrepot has credentials for the locked registry, and puller may have what is there.
// Anonymous is its access.anonymous.
func guarded(t *testing.T, anonymous string) func(upstream string) string {
	t.Helper()
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte(puller.Password), bcrypt.DefaultCost)
	if err != nil {
		t.Fatal(err)
	}
	passwords := filepath.Join(dir, "htpasswd")
	writeFile(t, passwords, puller.Username+":"+string(hash)+"\n")
	return func(upstream string) string {
		return configuration(upstream) + fmt.Sprintf(`    credentials: {username: %s, password: %s}
access:
  anonymous: %s
  htpasswd_file: %q
  users: {%s: {pull: ["docker.io/library/**"]}}
`, secret.Username, secret.Password, anonymous, passwords, puller.Username)
	}
}

// basicHeader is how a client says who it is.
func basicHeader(c testbed.Credentials) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// telling checks that nothing of a client's password is in entrepot's log, but its name.
func telling(t *testing.T, m mirror) {
	t.Helper()
	if err := m.entrepot.Stop(); err != nil { // what it has to say is written by then
		t.Fatal(err)
	}
	log, err := m.entrepot.Log()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log, puller.Password) || strings.Contains(log, basicHeader(puller)) {
		t.Error("the client's password is in entrepot's log")
	}
	if !strings.Contains(log, `"user":"`+puller.Username+`"`) {
		t.Error("the user is not in entrepot's log")
	}
}

// TestPodmanSaysWhoItIs has the anonymous denied, and allowed: podman says who it is only where its ping is refused.
func TestPodmanSaysWhoItIs(t *testing.T) {
	needRoot(t)
	need(t, "podman", "conmon")
	for _, anonymous := range []string{"auto", "allow"} {
		t.Run(anonymous, func(t *testing.T) {
			m := startMirror(t, locked, guarded(t, anonymous))
			p := newPodman(t, m.entrepot.Address).(*podman)
			s := steps{t: t, client: p}
			s.lacks(images.private.ByTag())
			writeFile(t, filepath.Join(p.dir, "auth.json"), fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`,
				m.entrepot.Address, strings.TrimPrefix(basicHeader(puller), "Basic ")))
			s.pull("cold", images.private, images.private.ByTag(), native)
			s.runs(images.private)
			s.fresh()
			s.pull("warm", images.private, images.private.ByDigest(), native)
			writeFile(t, filepath.Join(p.dir, "auth.json"), "{}")
			s.fresh()
			s.lacks(images.private.ByTag())
			s.lacks(images.private.ByDigest())
			telling(t, m)
		})
	}
}

func TestContainerdSaysWhoItIs(t *testing.T) {
	needRoot(t)
	need(t, "containerd", "ctr", "runc")
	m := startMirror(t, locked, guarded(t, "allow"))
	c := newContainerd(t, m.entrepot.Address).(*containerd)
	s := steps{t: t, client: c}
	s.lacks(images.private.ByTag())
	host := fmt.Sprintf("[host.%q", "http://"+m.entrepot.Address)
	writeFile(t, filepath.Join(c.hosts, "docker.io", "hosts.toml"), fmt.Sprintf(`server = "https://registry-1.docker.io"
%s]
  capabilities = ["pull", "resolve"]
%s.header]
  Authorization = %q
`, host, host, basicHeader(puller)))
	s.pull("cold", images.private, images.private.ByTag(), native)
	s.fresh()
	s.pull("warm", images.private, images.private.ByDigest(), native)
	writeHosts(t, c.hosts, m.entrepot.Address)
	s.fresh()
	s.lacks(images.private.ByTag())
	s.lacks(images.private.ByDigest())
	telling(t, m)
}

// TestCertificatesSayWhoTheirOwnersAre has entrepot speak TLS, and clients with and without certificates of its authority.
func TestCertificatesSayWhoTheirOwnersAre(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t)
	ca.write(t, filepath.Join(dir, "ca.pem"), "")
	server := ca.issue(t, "entrepot")
	server.write(t, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	m := startMirror(t, locked, func(upstream string) string {
		return configuration(upstream) + fmt.Sprintf(`    credentials: {username: %s, password: %s}
tls: {cert_file: %q, key_file: %q, client_ca_file: %q}
access:
  users: {%s: {pull: ["docker.io/library/**"]}}
`, secret.Username, secret.Password, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem"), puller.Username)
	})
	tag := "/v2/" + images.private.Repository + "/manifests/" + images.private.Tag
	for _, tt := range []struct {
		name   string
		shown  *identity
		status int
	}{
		{"a user", ca.issue(t, puller.Username), 200},
		{"the same again", ca.issue(t, puller.Username), 200},
		{"somebody else", ca.issue(t, "stranger"), 404},
		{"nobody", nil, 403},
	} {
		roots := x509.NewCertPool()
		roots.AddCert(ca.leaf)
		config := &tls.Config{RootCAs: roots}
		if tt.shown != nil {
			config.Certificates = []tls.Certificate{{Certificate: [][]byte{tt.shown.leaf.Raw}, PrivateKey: tt.shown.key}}
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		req, err := http.NewRequestWithContext(running, http.MethodGet, "https://"+m.entrepot.Address+tag, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		client.CloseIdleConnections()
		if resp.StatusCode != tt.status || err != nil || resp.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: %s %s, %v", tt.name, resp.Status, body, err)
		}
	}
}

// identity is a certificate with its key.
type identity struct {
	leaf *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *identity {
	return newIdentity(t, &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign}, nil)
}

// issue makes a certificate for a server on this machine, and for a client of that name.
func (i *identity) issue(t *testing.T, name string) *identity {
	return newIdentity(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, i)
}

func newIdentity(t *testing.T, template *x509.Certificate, issuer *identity) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if issuer == nil {
		issuer = &identity{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.leaf, key.Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{leaf, key}
}

// write writes the certificate, and the key if it has a path.
func (i *identity) write(t *testing.T, certificate, key string) {
	t.Helper()
	var text bytes.Buffer
	if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: i.leaf.Raw}); err != nil {
		t.Fatal(err)
	}
	writeFile(t, certificate, text.String())
	if key == "" {
		return
	}
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}
