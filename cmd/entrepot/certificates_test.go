package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/entrepot/entrepot/config"
)

// identity is a certificate that signs itself.
type identity struct{ cert, key []byte }

func newIdentity(t *testing.T, name string) identity {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return identity{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}
}

// pair is the identity as TLS wants it.
func (i identity) pair(t *testing.T) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(i.cert, i.key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// replace writes files as a Kubernetes secret or certbot changes them: whole, under another inode.
func replace(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

func tlsFiles(dir string) config.TLS {
	return config.TLS{CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key"), ClientCAFile: filepath.Join(dir, "ca")}
}

func TestCertificatesAreReadAgainWhenTheyChange(t *testing.T) {
	one, two := newIdentity(t, "one"), newIdentity(t, "two")
	dir := t.TempDir()
	replace(t, dir, map[string][]byte{"cert": one.cert, "key": one.key, "ca": one.cert})
	core, logs := observer.New(zapcore.DebugLevel)
	synctest.Test(t, func(t *testing.T) {
		c, err := newCertificates(tlsFiles(dir), zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		shown := func() (string, *tls.Config) {
			t.Helper()
			in, err := c.forClient(nil)
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := x509.ParseCertificate(in.Certificates[0].Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			return leaf.Subject.CommonName, in
		}
		expect := func(what, want string, lines int) {
			t.Helper()
			if name, _ := shown(); name != want {
				t.Errorf("%s: %s is shown, want %s", what, name, want)
			}
			if got := logs.Len(); got != lines {
				t.Errorf("%s: %d lines are logged, want %d", what, got, lines)
			}
		}
		later := func() { <-time.After(lookAgain) }
		_, first := shown()
		later()
		if _, again := shown(); again != first {
			t.Error("what has not changed is another configuration, by which no session can be resumed")
		}
		replace(t, dir, map[string][]byte{"cert": two.cert, "key": two.key})
		expect("within the second", "one", 0)
		later()
		expect("changed", "two", 1)
		replace(t, dir, map[string][]byte{"cert": one.cert})
		later()
		expect("the key is of another", "two", 2)
		later()
		expect("it is said once", "two", 2)
		replace(t, dir, map[string][]byte{"key": one.key})
		later()
		expect("the key has come", "one", 3)
		replace(t, dir, map[string][]byte{"ca": []byte("nothing")})
		later()
		expect("no authority", "one", 4)
		if _, in := shown(); in.ClientCAs == nil {
			t.Error("the authority is forgotten")
		}
		if err := os.Remove(filepath.Join(dir, "cert")); err != nil {
			t.Fatal(err)
		}
		later()
		expect("the file is gone", "one", 5)
	})
}

func TestListenerSpeaksTLSAndBelievesClients(t *testing.T) {
	server, client, stranger := newIdentity(t, "server"), newIdentity(t, "alice"), newIdentity(t, "alice")
	dir := t.TempDir()
	replace(t, dir, map[string][]byte{"cert": server.cert, "key": server.key, "ca": client.cert})
	certificates, err := newCertificates(tlsFiles(dir), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if len(r.TLS.VerifiedChains) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		w.Header().Set("Name", name+" "+r.Proto)
	})
	address := serving(t, certificates, handler)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(server.cert)
	for _, tt := range []struct {
		name string
		who  []tls.Certificate
		want string // "" is a handshake that fails
	}{
		{"nobody", nil, "nobody HTTP/1.1"},
		{"alice", []tls.Certificate{client.pair(t)}, "alice HTTP/1.1"},
		{"somebody with the name of alice", []tls.Certificate{stranger.pair(t)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if len(tt.who) == 0 {
						return &tls.Certificate{}, nil
					}
					return &tt.who[0], nil // whatever the server says that it wants
				}}}
			defer transport.CloseIdleConnections()
			res, err := (&http.Client{Transport: transport}).Get("https://" + address)
			if err != nil {
				if tt.want != "" {
					t.Error(err)
				}
				return
			}
			res.Body.Close()
			if got := res.Header.Get("Name"); got != tt.want {
				t.Errorf("it is %s, want %q", got, tt.want)
			}
		})
	}
}

// A session is not resumed on the word of an authority that is believed no more.
func TestSessionsGoByTheAuthoritiesOfNow(t *testing.T) {
	server, client, other := newIdentity(t, "server"), newIdentity(t, "alice"), newIdentity(t, "other")
	dir := t.TempDir()
	replace(t, dir, map[string][]byte{"cert": server.cert, "key": server.key, "ca": client.cert})
	certificates, err := newCertificates(tlsFiles(dir), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.VerifiedChains) > 0 {
			w.Header().Set("Name", r.TLS.PeerCertificates[0].Subject.CommonName)
		}
		if r.TLS.DidResume {
			w.Header().Set("Resumed", "yes")
		}
	})
	address := serving(t, certificates, handler)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(server.cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(8),
		Certificates: []tls.Certificate{client.pair(t)}}}
	ask := func() (name, resumed string) {
		res, err := (&http.Client{Transport: transport}).Get("https://" + address)
		if err != nil {
			return "", err.Error()
		}
		res.Body.Close()
		transport.CloseIdleConnections()
		return res.Header.Get("Name"), res.Header.Get("Resumed")
	}
	ask()
	if name, resumed := ask(); name != "alice" || resumed != "yes" {
		t.Errorf("%q, resumed: %q", name, resumed)
	}
	replace(t, dir, map[string][]byte{"ca": other.cert})
	certificates.mu.Lock()
	certificates.looked = time.Time{}
	certificates.mu.Unlock()
	if name, resumed := ask(); name != "" {
		t.Errorf("%s is believed, resumed: %q", name, resumed)
	}
}

// serving returns the address at which a handler is served with certificates, until the test ends.
func serving(t *testing.T, c *certificates, h http.Handler) (address string) {
	t.Helper()
	servers, err := listen(zap.NewNop(), []endpoint{{"mirror", "127.0.0.1:0", h, c.config()}})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- servers[0].http.Serve(servers[0].listener) }()
	t.Cleanup(func() {
		servers[0].http.Close()
		<-served
	})
	return servers[0].address
}
