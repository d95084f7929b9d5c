package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pulled asks for a manifest and for a blob, so that all of an endpoint's roads are used that a pull uses.
func pulled(t *testing.T, r *Registry) error {
	t.Helper()
	_, _, err := r.Manifest(t.Context(), repo, "7", nil)
	if err != nil {
		return err
	}
	stream, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
	if err != nil {
		return err
	}
	defer stream.Close()
	_, err = io.ReadAll(stream)
	return err
}

// store serves the one manifest and the one blob there are.
func store(rw http.ResponseWriter, req *http.Request) {
	if strings.Contains(req.URL.Path, "/blobs/") {
		serveLayer(rw, req)
	} else {
		serveContent(rw, req)
	}
}

// blobsAt redirects for blobs.
func blobsAt(to *url.URL) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		if strings.Contains(req.URL.Path, "/blobs/") {
			redirect(to.String()+"/blobs/x?signature=s3cret")(rw, req)
		} else {
			serveContent(rw, req)
		}
	}
}

func TestAuthorityThatIsNamedIsBelieved(t *testing.T) {
	a := newAuthority(t)
	var mu sync.Mutex
	protocols := map[string]string{}
	u := listen(t, &tls.Config{Certificates: []tls.Certificate{a.server()}}, func(rw http.ResponseWriter, req *http.Request) {
		kind := strings.Split(req.URL.Path, "/")[4]
		mu.Lock()
		protocols[kind] = req.Proto
		mu.Unlock()
		store(rw, req)
	})
	if err := pulled(t, reaching(t, Endpoint{URL: u, CAFile: a.file()}, Options{})); err != nil {
		t.Error(err)
	}
	if protocols["manifests"] != "HTTP/2.0" || protocols["blobs"] != "HTTP/1.1" {
		t.Errorf("protocols %v", protocols)
	}
	if err := pulled(t, reaching(t, Endpoint{URL: u, Insecure: true}, Options{})); err != nil {
		t.Errorf("insecure: %v", err)
	}
}

func TestCertificatesThatAreNotBelievedSayWhatToDo(t *testing.T) {
	a := newAuthority(t)
	plain := listen(t, nil, store)
	asHTTPS := *plain
	asHTTPS.Scheme = "https"
	serve := func(c tls.Certificate) *url.URL {
		return listen(t, &tls.Config{Certificates: []tls.Certificate{c}}, store)
	}
	strict := listen(t, &tls.Config{Certificates: []tls.Certificate{a.server()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool()}, store)
	for _, tt := range []struct {
		name string
		e    Endpoint
		want string
	}{
		{"unknown authority", Endpoint{URL: serve(a.server())}, "in ca_file of endpoint HOST, or set insecure: true there"},
		{"another name", Endpoint{URL: serve(a.pair(&x509.Certificate{DNSNames: []string{"other.test"}})), CAFile: a.file()}, "the certificate of HOST is for another name"},
		{"expired", Endpoint{URL: serve(a.pair(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(-time.Minute)})),
			CAFile: a.file()}, "has ended"},
		{"no client certificate", Endpoint{URL: strict, CAFile: a.file()}, "client_cert_file of endpoint HOST"},
		{"plain http", Endpoint{URL: &asHTTPS}, "HOST does not speak https"},
		{"storage of an unknown authority", Endpoint{URL: listen(t, nil, blobsAt(serve(a.server())))}, "in ca_file of endpoint HOST, which led there"},
		{"storage, though insecure", Endpoint{URL: listen(t, &tls.Config{Certificates: []tls.Certificate{a.server()}}, blobsAt(serve(a.server()))),
			Insecure: true}, "in ca_file of endpoint HOST, which led there"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log, logs := debugLog()
			e := asError(t, pulled(t, reaching(t, tt.e, Options{Log: log})))
			want := strings.ReplaceAll(tt.want, "HOST", tt.e.URL.Host)
			if !strings.Contains(e.Error(), want) || strings.Contains(e.Error(), "s3cret") {
				t.Errorf("%v, want %s", e, want)
			}
			if said := logs.FilterMessage("endpoint is down").All(); len(said) == 0 || !strings.Contains(fmt.Sprint(said[0].ContextMap()), want) {
				t.Errorf("logged %v", said)
			}
		})
	}
}

func TestAuthorityIsBelievedAbroadToo(t *testing.T) {
	a := newAuthority(t)
	storage := listen(t, &tls.Config{Certificates: []tls.Certificate{a.server()}}, store)
	u := listen(t, nil, blobsAt(storage))
	if err := pulled(t, reaching(t, Endpoint{URL: u, CAFile: a.file()}, Options{})); err != nil {
		t.Error(err)
	}
}

// seenAs notes who a server's clients say they are.
func seenAs(names *sync.Map, h http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		name := "nobody"
		if len(req.TLS.PeerCertificates) > 0 {
			name = req.TLS.PeerCertificates[0].Subject.CommonName
		}
		names.Store(name, true)
		h(rw, req)
	}
}

func seen(names *sync.Map) string {
	var all []string
	names.Range(func(name, _ any) bool { all = append(all, name.(string)); return true })
	names.Clear()
	return strings.Join(all, " ")
}

func TestClientCertificateIsShownAtHomeAlone(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	e := Endpoint{CAFile: a.file(), ClientCertFile: dir + "/cert", ClientKeyFile: dir + "/key"}
	a.client("mirror", e.ClientCertFile, e.ClientKeyFile)
	asks := &tls.Config{Certificates: []tls.Certificate{a.server()}, ClientAuth: tls.RequestClientCert}
	var home, abroad, back sync.Map
	var storage *url.URL
	e.URL = listen(t, asks.Clone(), func(rw http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/back") {
			seenAs(&back, serveLayer)(rw, req)
			return
		}
		seenAs(&home, blobsAt(storage))(rw, req)
	})
	storage = listen(t, asks.Clone(), seenAs(&abroad, func(rw http.ResponseWriter, req *http.Request) {
		redirect(e.URL.String()+"/back")(rw, req)
	}))
	if err := pulled(t, reaching(t, e, Options{})); err != nil {
		t.Fatal(err)
	}
	if h, o, b := seen(&home), seen(&abroad), seen(&back); h != "mirror" || o != "nobody" || b != "nobody" {
		t.Errorf("at home as %s, abroad as %s, led back as %s", h, o, b)
	}
}

func TestNobodyShowsNoCertificate(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	e := Endpoint{CAFile: a.file(), ClientCertFile: dir + "/cert", ClientKeyFile: dir + "/key"}
	a.client("mirror", e.ClientCertFile, e.ClientKeyFile)
	asks := &tls.Config{Certificates: []tls.Certificate{a.server()}, ClientAuth: tls.RequestClientCert}
	e.URL = listen(t, asks, func(rw http.ResponseWriter, req *http.Request) {
		if len(req.TLS.PeerCertificates) == 0 {
			status(401)(rw, req)
			return
		}
		serveContent(rw, req)
	})
	r := reaching(t, e, Options{})
	if _, _, err := r.Manifest(t.Context(), repo, "7", nil); err != nil {
		t.Error(err)
	}
	for _, header := range []string{"", "Bearer of-a-client"} {
		if _, err := r.Shows(t.Context(), repo, "manifests/7", header); asError(t, err).Status != 401 {
			t.Errorf("shown to who presents %q: %v", header, err)
		}
	}
}

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	one, two := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	e := Endpoint{CAFile: one.file(), ClientCertFile: dir + "/cert", ClientKeyFile: dir + "/key"}
	one.client("first", e.ClientCertFile, e.ClientKeyFile)
	var serving atomic.Pointer[tls.Config]
	serve := func(a *authority) {
		serving.Store(&tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{a.server()}})
	}
	serve(one)
	var names sync.Map
	e.URL = listen(t, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return serving.Load(), nil }}, seenAs(&names, store))
	log, logs := debugLog()
	r := reaching(t, e, Options{Log: log})
	expect := func(step, as, reason string) {
		t.Helper()
		err := pulled(t, r)
		if (err == nil) != (reason == "") || err != nil && !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v", step, err)
		}
		if got := seen(&names); got != as {
			t.Errorf("%s: seen as %q, want %q", step, got, as)
		}
	}
	expect("at first", "first", "")
	one.client("second", e.ClientCertFile, e.ClientKeyFile)
	expect("another client certificate", "second", "")
	replace(t, e.ClientKeyFile, []byte("half of a k"))
	replace(t, e.CAFile, nil)
	expect("broken files", "second", "")
	os.Remove(e.CAFile)
	expect("a missing file", "second", "")
	if n := logs.FilterMessageSnippet("can't be read").Len(); n != 2 {
		t.Errorf("%d warnings of files", n)
	}
	one.client("third", e.ClientCertFile, e.ClientKeyFile)
	replace(t, e.CAFile, one.pem)
	expect("mended", "third", "")
	serve(two)
	replace(t, e.CAFile, append(two.pem, one.pem...))
	expect("another authority", "third", "")
	replace(t, e.CAFile, one.pem)
	expect("the old authority", "", "in ca_file of endpoint")
}

func TestNewNamesTheFileThatIsOfNoUse(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk")
	replace(t, junk, []byte("s3cret"))
	u := &url.URL{Scheme: "https", Host: "registry.test"}
	proxy := func(raw string) func(*http.Request) (*url.URL, error) {
		return func(*http.Request) (*url.URL, error) { return url.Parse(raw) }
	}
	for _, tt := range []struct {
		e    Endpoint
		want string
	}{
		{Endpoint{CAFile: dir + "/none"}, "ca_file: stat " + dir + "/none: no such file"},
		{Endpoint{CAFile: junk}, "ca_file: " + junk + " holds no certificate in PEM form"},
		{Endpoint{ClientCertFile: junk}, "go together"},
		{Endpoint{ClientCertFile: junk, ClientKeyFile: junk}, "client_cert_file " + junk},
		{Endpoint{ClientCertFile: junk, ClientKeyFile: dir + "/none"}, "client_key_file: stat"},
		{Endpoint{Dial: "10.0.0.1"}, "should be host:port"},
		{Endpoint{DNS: "resolver.test"}, "ip or ip:port"},
		{Endpoint{Dial: "10.0.0.1:1", Proxy: proxy("http://ci:s3cret@proxy.test")}, "dial and proxy exclude each other"},
		{Endpoint{Insecure: true, Proxy: proxy("https://ci:s3cret@proxy.test")}, "would hold for a proxy"},
		{Endpoint{Proxy: proxy("ftp://ci:s3cret@proxy.test")}, "not an http, https or socks5 URL"},
		{Endpoint{Proxy: proxy("http://ci:s3cret@:8080")}, "not an http, https or socks5 URL"},
		{Endpoint{Proxy: proxy("http://ci:s3cret@proxy.test:port")}, "the proxy setting is not a URL"},
	} {
		tt.e.URL = u
		_, err := New(Options{Name: "corp", Endpoints: []Endpoint{tt.e}})
		if err == nil || !strings.HasPrefix(err.Error(), "registry corp: endpoint registry.test: ") || !strings.Contains(err.Error(), tt.want) ||
			strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
	for _, dns := range []string{"127.0.0.1", "127.0.0.1:5353", "::1", "[::1]", "[::1]:53"} {
		if _, err := resolverAt(dns); err != nil {
			t.Error(err)
		}
	}
}

// proxy is a CONNECT proxy that wants a password. It returns its URL without one, and counts connections by host.
func connectProxy(t *testing.T, password string) (*url.URL, *sync.Map) {
	var hosts sync.Map
	u := listen(t, nil, func(rw http.ResponseWriter, req *http.Request) {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte("ci:"+password))
		if req.Method != http.MethodConnect || req.Header.Get("Proxy-Authorization") != want {
			rw.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		hosts.Store(req.Host, true)
		there, err := net.Dial("tcp", req.Host)
		if err != nil {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer here.Close()
		io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		var both sync.WaitGroup
		both.Go(func() { io.Copy(there, here); there.(*net.TCPConn).CloseWrite() })
		io.Copy(here, there)
		here.Close()
		both.Wait()
	})
	return u, &hosts
}

func TestProxyIsUsedAndItsPasswordHidden(t *testing.T) {
	a := newAuthority(t)
	c := &tls.Config{Certificates: []tls.Certificate{a.server()}}
	storage := listen(t, c.Clone(), store)
	u := listen(t, c.Clone(), blobsAt(storage))
	proxy, hosts := connectProxy(t, "s3cret")
	dead := listen(t, nil, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	for _, tt := range []struct {
		name, host, password string
		ok                   bool
	}{
		{"right", proxy.Host, "s3cret", true},
		{"wrong password", proxy.Host, "wr0ng-s3cret", false},
		{"broken", dead.Host, "s3cret", false},
		{"nobody there", "127.0.0.1:1", "s3cret", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := &url.URL{Scheme: "http", Host: tt.host, User: url.UserPassword("ci", tt.password)}
			e := Endpoint{URL: u, CAFile: a.file(), Proxy: http.ProxyURL(at)}
			log, logs := debugLog()
			r := reaching(t, e, Options{Log: log})
			err := pulled(t, r)
			if (err == nil) != tt.ok {
				t.Error(err)
			}
			printed := fmt.Sprintf("%+v %#v", e, e)
			for ; err != nil; err = errors.Unwrap(err) {
				printed += err.Error()
			}
			for _, entry := range logs.All() {
				printed += entry.Message + fmt.Sprint(entry.ContextMap())
			}
			if strings.Contains(printed, "s3cret") || strings.Contains(printed, url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("ci:s3cret")))) {
				t.Error(printed)
			}
		})
	}
	for _, host := range []string{u.Host, storage.Host} {
		if _, ok := hosts.Load(host); !ok {
			t.Errorf("%s was reached without the proxy", host)
		}
	}
}

func TestDialLeadsElsewhereAtHomeAlone(t *testing.T) {
	a := newAuthority(t)
	storage := listen(t, &tls.Config{Certificates: []tls.Certificate{a.server()}}, store)
	there := listen(t, &tls.Config{Certificates: []tls.Certificate{a.server("registry.test")}}, func(rw http.ResponseWriter, req *http.Request) {
		if req.Host != "registry.test" || req.TLS.ServerName != "registry.test" {
			t.Errorf("asked as %s, %s", req.Host, req.TLS.ServerName)
		}
		blobsAt(storage)(rw, req)
	})
	e := Endpoint{URL: &url.URL{Scheme: "https", Host: "registry.test"}, CAFile: a.file(), Dial: there.Host, Proxy: NoProxy}
	if err := pulled(t, reaching(t, e, Options{})); err != nil {
		t.Error(err)
	}
}

// nameServer answers with the loopback address for any name, and tells of those that it was asked for.
func nameServer(t *testing.T) (address string, asked *sync.Map) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked = &sync.Map{}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			buf := make([]byte, 512)
			n, from, err := c.ReadFrom(buf)
			if err != nil || n < 12 {
				return
			}
			// A header of 12 bytes, and one question: labels up to an empty one, the type, the class.
			var name []string
			i := 12
			for ; buf[i] != 0; i += 1 + int(buf[i]) {
				name = append(name, string(buf[i+1:i+1+int(buf[i])]))
			}
			asked.Store(strings.Join(name, "."), true)
			isA := buf[i+2] == 1
			answer := append([]byte{buf[0], buf[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, buf[12:i+5]...)
			if isA { // the name as in the question, A, IN, 60 s, 4 bytes
				answer[7] = 1
				answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1)
			}
			c.WriteTo(answer, from)
		}
	})
	t.Cleanup(func() { c.Close(); serving.Wait() })
	return c.LocalAddr().String(), asked
}

func TestNamesAreAskedOfTheResolverThatIsGiven(t *testing.T) {
	storage := listen(t, nil, store)
	storage.Host = "storage.test:" + storage.Port()
	u := listen(t, nil, blobsAt(storage))
	u.Host = "registry.test:" + u.Port()
	dns, asked := nameServer(t)
	if err := pulled(t, reaching(t, Endpoint{URL: u, DNS: dns, Proxy: NoProxy}, Options{})); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"registry.test", "storage.test"} {
		if _, ok := asked.Load(name); !ok {
			t.Errorf("%s was not asked for", name)
		}
	}
}
