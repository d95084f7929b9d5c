package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/upstream/watched"
)

const (
	// maxHeader bounds the header of an answer. The longest honest ones carry a signed URL or two.
	maxHeader = 256 << 10

	// idlePerHost is how many connections are kept between requests: as many as the layers of a few pulls side by side.
	idlePerHost = 32

	// maxPEM bounds a file of certificates. All that systems believe by default take a quarter of a MiB.
	maxPEM = 4 << 20
)

// NoProxy is the Endpoint.Proxy that has none asked, whatever the environment says.
func NoProxy(*http.Request) (*url.URL, error) { return nil, nil }

// roads are an endpoint's ways out: for blobs and for all else, and of each one to its own origin, one that shows no client
// certificate there, and one to wherever that leads. When one of the files changes that they were made of, they are made anew, and the old ones used to their end by
// who is under way.
type roads struct {
	of      *endpoint
	given   Endpoint
	options Options
	log     *zap.Logger
	dialer  *net.Dialer
	dial    func(ctx context.Context, network, address string) (net.Conn, error) // to the endpoint's own origin
	proxy   func(*http.Request) (*url.URL, error)                                // of that; abroad too, unless Dial stands in for it
	files   [3]*watched.File                                                     // authorities, certificate, key; nil: not given

	asked atomic.Bool // the endpoint has asked for a client certificate, as it may without wanting one

	mu sync.Mutex
	// guards following
	now *sixRoads
}

// sixRoads are what there is at a time.
type sixRoads struct {
	versions [3]int        // of the files
	home     twoTransports // the endpoint's own origin
	stranger twoTransports // the same, without a client certificate
	abroad   twoTransports
}

// twoTransports keep blobs and all else apart. Blobs have HTTP/1.1: over HTTP/2 the layers of a pull would share one TCP
// connection and its window, and manifests would queue behind them.
type twoTransports struct{ blobs, small *http.Transport }

// newRoads makes the roads of an endpoint. Its errors name what is to be mended.
func newRoads(e *endpoint, given Endpoint, o Options, log *zap.Logger) (*roads, error) {
	r := &roads{of: e, given: given, options: o, log: log.With(zap.String("registry", o.Name), zap.String("endpoint", e.name))}
	r.dialer = &net.Dialer{Timeout: cmp.Or(o.DialTimeout, 5*time.Second)}
	if given.DNS != "" {
		resolver, err := resolverAt(given.DNS)
		if err != nil {
			return nil, err
		}
		r.dialer.Resolver = resolver
	}
	if err := r.chooseProxy(); err != nil {
		return nil, err
	}
	r.dial = r.dialer.DialContext
	if given.Dial != "" {
		if _, _, err := net.SplitHostPort(given.Dial); err != nil {
			return nil, fmt.Errorf("dial is %q, and should be host:port", given.Dial)
		}
		r.dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return r.dialer.DialContext(ctx, network, given.Dial)
		}
	}
	if (given.ClientCertFile == "") != (given.ClientKeyFile == "") {
		return nil, errors.New("client_cert_file and client_key_file go together: one is missing")
	}
	for i, path := range []string{given.CAFile, given.ClientCertFile, given.ClientKeyFile} {
		if path != "" {
			r.files[i] = watched.New(path, maxPEM)
		}
	}
	contents, versions, err := r.read()
	if err == nil {
		r.now, err = r.build(contents, versions)
	}
	if err == nil && given.Insecure {
		r.log.Warn("insecure: the certificate of the endpoint is not verified")
	}
	return r, err
}

// chooseProxy decides which proxy to ask. A setting that can't work is an error now.
func (r *roads) chooseProxy() error {
	given := r.given.Proxy
	if given == nil {
		given = http.ProxyFromEnvironment
	}
	r.proxy = func(req *http.Request) (*url.URL, error) { return hideProxy(given(req)) }
	u, err := r.proxy(&http.Request{URL: r.of.url})
	if r.given.Proxy == nil && (err != nil || r.given.Dial != "") {
		return nil // that the environment's is of no use shows when it is used
	}
	switch {
	case err != nil || u == nil:
		return err
	case u.Scheme == "https" && (r.given.ClientCertFile != "" || r.given.Insecure):
		return errors.New("client_cert_file and insecure would hold for a proxy that is spoken to by https too: use an http one, or proxy: none")
	case r.given.Dial != "":
		return errors.New("dial and proxy exclude each other: a proxy connects to where the URL says")
	case u.Hostname() == "", u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" && u.Scheme != "socks5h":
		return errors.New("the proxy is not an http, https or socks5 URL with a host")
	}
	return nil
}

// hideProxy hides why a proxy setting can't be read: the reason quotes the setting, password included.
func hideProxy(u *url.URL, err error) (*url.URL, error) {
	if err != nil {
		return nil, errors.New("the proxy setting is not a URL")
	}
	return u, nil
}

// resolverAt returns the DNS server at an address, to ask in place of those of the system.
func resolverAt(address string) (*net.Resolver, error) {
	server, err := netip.ParseAddrPort(address)
	if err != nil {
		ip, err := netip.ParseAddr(strings.Trim(address, "[]"))
		if err != nil {
			return nil, fmt.Errorf("dns is %q, and should be the address of a DNS server: ip or ip:port", address)
		}
		server = netip.AddrPortFrom(ip, 53)
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.String())
	}}, nil
}

// read returns what the files hold.
func (r *roads) read() (contents [3][]byte, versions [3]int, err error) {
	for i, f := range r.files {
		if f == nil {
			continue
		}
		var failed error
		contents[i], versions[i], failed = f.Read()
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", [...]string{"ca_file", "client_cert_file", "client_key_file"}[i], failed))
		}
	}
	return contents, versions, err
}

// build makes roads of what the files hold.
func (r *roads) build(contents [3][]byte, versions [3]int) (*sixRoads, error) {
	home, stranger, abroad := &tls.Config{InsecureSkipVerify: r.given.Insecure}, &tls.Config{InsecureSkipVerify: r.given.Insecure}, &tls.Config{}
	if r.files[0] != nil {
		pool, err := x509.SystemCertPool()
		if err != nil { // a system without any, as in small containers
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(contents[0]) {
			return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM form", r.given.CAFile)
		}
		home.RootCAs, stranger.RootCAs, abroad.RootCAs = pool, pool, pool
	}
	var pair tls.Certificate // without a certificate: none is shown
	if r.files[1] != nil {
		var err error
		pair, err = tls.X509KeyPair(contents[1], contents[2])
		if err != nil {
			return nil, fmt.Errorf("client_cert_file %s, client_key_file %s: %w", r.given.ClientCertFile, r.given.ClientKeyFile, err)
		}
	}
	// Shown whichever authorities the endpoint lists: it says more about a wrong one than about none.
	home.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		r.asked.Store(true)
		return &pair, nil
	}
	proxy := r.proxy
	if r.given.Dial != "" {
		proxy = nil
	}
	return &sixRoads{
		versions: versions,
		home:     r.transports(home, r.dial, proxy),
		stranger: r.transports(stranger, r.dial, proxy),
		abroad:   r.transports(abroad, r.dialer.DialContext, r.proxy),
	}, nil
}

func (r *roads) transports(c *tls.Config, dial func(context.Context, string, string) (net.Conn, error),
	proxy func(*http.Request) (*url.URL, error)) twoTransports {
	one := func(h2 bool) *http.Transport {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(h2)
		t := &http.Transport{
			Proxy:                  proxy,
			DialContext:            dial,
			TLSClientConfig:        c.Clone(),
			TLSHandshakeTimeout:    r.dialer.Timeout,
			ResponseHeaderTimeout:  cmp.Or(r.options.HeaderTimeout, 15*time.Second),
			MaxResponseHeaderBytes: maxHeader,
			MaxIdleConnsPerHost:    idlePerHost,
			IdleConnTimeout:        90 * time.Second,
			DisableCompression:     true, // a body unpacked in passing has neither the size nor the digest that were asked for
			Protocols:              protocols,
			// A dead HTTP/2 connection takes every request with it until somebody pings.
			HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
		}
		if r.options.tune != nil {
			r.options.tune(t)
		}
		return t
	}
	return twoTransports{blobs: one(false), small: one(true)}
}

// current returns the roads that go by what the files hold now, or by what they held last if that is of no use now.
func (r *roads) current() *sixRoads {
	contents, versions, err := r.read()
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.now
	for i := range versions {
		// Older than what the roads were made of: it was read before somebody else's, who came here earlier.
		if versions[i] < old.versions[i] {
			return old
		}
	}
	if versions == old.versions {
		return old
	}
	var fresh *sixRoads
	if err == nil {
		fresh, err = r.build(contents, versions)
	}
	if err != nil {
		old.versions = versions // said once
		r.log.Warn("certificates that have changed can't be read: the old ones are used on", zap.Error(err))
		return old
	}
	r.now = fresh
	r.log.Info("certificates have changed, and are used for new connections")
	old.closeIdle()
	return fresh
}

// way is where a road leads, and as whom.
type way int

const (
	home     way = iota // to the endpoint's own origin
	stranger            // there too, by who shows no client certificate
	away                // to wherever it leads: realms and storage hosts
)

// way is the way to a URL for who is asked as somebody. A client certificate is the operator's: nobody, and who a client says it
// is, have none.
func (e *endpoint) way(to *url.URL, as identity) way {
	switch {
	case originOf(to) != e.origin:
		return away
	case as == own:
		return home
	}
	return stranger
}

// to returns the road for some traffic.
func (r *roads) to(t traffic, w way) road {
	roads := r.current()
	transports := [...]twoTransports{home: roads.home, stranger: roads.stranger, away: roads.abroad}[w]
	if t == blobs {
		return road{transports.blobs, r.of, w != away}
	}
	return road{transports.small, r.of, w != away}
}

func (r *roads) closeIdle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.closeIdle()
}

func (f *sixRoads) closeIdle() {
	for _, two := range []twoTransports{f.home, f.stranger, f.abroad} {
		two.blobs.CloseIdleConnections()
		two.small.CloseIdleConnections()
	}
}

// road is one way out of an endpoint.
type road struct {
	transport *http.Transport
	of        *endpoint
	home      bool
}

// RoundTrip sends a request. Its errors say what can be done about a certificate that is not believed.
func (r road) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.transport.RoundTrip(req)
	if err != nil {
		return nil, r.explain(err, printable(req.URL.Host, maxMessage))
	}
	return resp, nil
}

// explain puts the remedy before an error of TLS, whose own text may be long, and cut.
func (r road) explain(err error, host string) error {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, otherName := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	says := func(part string) bool { return strings.Contains(err.Error(), part) }
	remedy := ""
	switch {
	case unknown && r.home:
		remedy = "the certificate of " + host + " is not of a known authority: name that one's in ca_file of endpoint " + r.of.name +
			", or set insecure: true there"
	case unknown:
		remedy = "the certificate of " + host + " is not of a known authority: name that one's in ca_file of endpoint " + r.of.name +
			", which led there"
	case otherName && r.home:
		remedy = "the certificate of " + host + " is for another name: use that in the url of endpoint " + r.of.name +
			", with dial if it leads elsewhere, or set insecure: true there"
	case otherName:
		remedy = "the certificate of " + host + " is for another name"
	case isInvalid && invalid.Reason == x509.Expired:
		remedy = "the certificate of " + host + " has ended, or begins later: it has to be renewed, unless this machine's clock is wrong"
	// HTTP/2 does not tell what the other side has said before it hung up.
	case r.home && r.of.roads.asked.Load() && (says("remote error: tls: ") || says("http2: client conn could not be established")):
		remedy = host + " wants another client certificate: see client_cert_file of endpoint " + r.of.name
	// Nor does the kernel, if that comes while the request is still being sent.
	case r.home && r.of.roads.asked.Load() && r.of.roads.files[1] == nil && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)):
		remedy = host + " has asked for a client certificate, and hung up: see client_cert_file of endpoint " + r.of.name
	case r.home && (noTLS || says("server gave HTTP response to HTTPS client")):
		remedy = host + " does not speak https: see the url of endpoint " + r.of.name
	default:
		return err
	}
	return fmt.Errorf("%s: %w", remedy, err)
}
