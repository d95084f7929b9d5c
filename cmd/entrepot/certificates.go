package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/upstream/watched"
)

// lookAgain is how long the files of certificates are taken to be what they were: a look costs three system calls, and handshakes
// come by the hundred.
const lookAgain = time.Second

// maxPEM bounds a file of certificates, in bytes: all that systems believe by default take a quarter of a MiB.
const maxPEM = 4 << 20

// certificates are what a listener of HTTPS shows, and whose certificates it believes. The files are read again when they have changed:
// new connections go by what they hold then. What does not parse changes nothing.
type certificates struct {
	pair     [2]*watched.File // the certificate and its key
	clientCA *watched.File    // nil: clients are not asked for certificates
	log      *zap.Logger

	mu sync.Mutex
	// guards following
	inUse  *tls.Config
	seen   [3]int // versions of the files
	looked time.Time
}

// newCertificates returns nil if there is no certificate.
func newCertificates(files config.TLS, log *zap.Logger) (*certificates, error) {
	if files.CertFile == "" {
		return nil, nil
	}
	c := &certificates{pair: [2]*watched.File{watched.New(files.CertFile, maxPEM), watched.New(files.KeyFile, maxPEM)}, log: log, looked: time.Now()}
	if files.ClientCAFile != "" {
		c.clientCA = watched.New(files.ClientCAFile, maxPEM)
	}
	var err error
	c.inUse, c.seen, err = c.read()
	return c, err
}

// config returns nil, which is plain HTTP, if there is no certificate.
func (c *certificates) config() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: c.forClient}
}

// forClient is of tls.Config. As long as nothing has changed all have the same configuration, so that sessions can be resumed.
func (c *certificates) forClient(*tls.ClientHelloInfo) (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= lookAgain {
		c.looked = now
		c.refreshLocked()
	}
	return c.inUse, nil
}

func (c *certificates) refreshLocked() {
	read, versions, err := c.read()
	if versions == c.seen {
		return // what is wrong with them has been told
	}
	c.seen = versions
	if err != nil {
		c.log.Error("the certificate has changed and can't be used: the one before is shown", zap.Error(err))
		return
	}
	c.inUse = read
	c.log.Info("the certificate has changed", zap.String("file", c.pair[0].Path()))
}

// read reads the files. Clients may show certificates, and need not. HTTP is 1.1: over HTTP/2 the layers of a pull would share one
// connection.
func (c *certificates) read() (is *tls.Config, versions [3]int, err error) {
	var texts [3][]byte
	for i, file := range []*watched.File{c.pair[0], c.pair[1], c.clientCA} {
		if file == nil {
			continue
		}
		var failed error
		texts[i], versions[i], failed = file.Read()
		err = errors.Join(err, failed)
	}
	if err != nil || versions == c.seen {
		return nil, versions, err
	}
	pair, err := tls.X509KeyPair(texts[0], texts[1])
	if err != nil {
		return nil, versions, fmt.Errorf("%s and %s: %w", c.pair[0].Path(), c.pair[1].Path(), err)
	}
	is = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{pair}}
	if c.clientCA == nil {
		return is, versions, nil
	}
	is.ClientAuth, is.ClientCAs = tls.VerifyClientCertIfGiven, x509.NewCertPool()
	if !is.ClientCAs.AppendCertsFromPEM(texts[2]) {
		return nil, versions, fmt.Errorf("%s has no certificate", c.clientCA.Path())
	}
	return is, versions, nil
}
