package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/config"
)

// lookAgain is how long the files of certificates are taken to be what they were: a look costs three system calls, and handshakes
// come by the hundred.
const lookAgain = time.Second

// certificates are what a listener of HTTPS shows, and whose certificates it believes. The files are read again when they have changed:
// new connections go by what they hold then. What does not parse changes nothing.
type certificates struct {
	files config.TLS
	log   *zap.Logger

	mu sync.Mutex
	// guards following
	inUse  *tls.Config
	seen   []os.FileInfo // the files as they were when they were read, nil for one that was not there
	looked time.Time
}

// newCertificates returns nil if there is no certificate.
func newCertificates(files config.TLS, log *zap.Logger) (*certificates, error) {
	if files.CertFile == "" {
		return nil, nil
	}
	c := &certificates{files: files, log: log, looked: time.Now()}
	c.seen = c.look() // before they are read: what changes meanwhile is read again
	var err error
	c.inUse, err = readCertificates(files)
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
	files := c.look()
	if sameFiles(c.seen, files) {
		return
	}
	c.seen = files
	read, err := readCertificates(c.files)
	if err != nil {
		c.log.Error("the certificate has changed and can't be used: the one before is shown", zap.Error(err))
		return
	}
	c.inUse = read
	c.log.Info("the certificate has changed", zap.String("file", c.files.CertFile))
}

// look returns how the files are.
func (c *certificates) look() (all []os.FileInfo) {
	for _, path := range []string{c.files.CertFile, c.files.KeyFile, c.files.ClientCAFile} {
		info, err := os.Stat(path)
		if err != nil {
			info = nil
		}
		all = append(all, info)
	}
	return all
}

func sameFiles(before, after []os.FileInfo) bool {
	for i, b := range before {
		a := after[i]
		switch {
		case a == nil && b == nil:
		case a == nil || b == nil || !os.SameFile(a, b) || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()):
			return false
		}
	}
	return true
}

// readCertificates reads the files. Clients may show certificates, and need not. HTTP is 1.1: over HTTP/2 the layers of a pull would
// share one connection.
func readCertificates(files config.TLS) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", files.CertFile, files.KeyFile, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{pair}}
	if files.ClientCAFile == "" {
		return c, nil
	}
	text, err := os.ReadFile(files.ClientCAFile)
	if err != nil {
		return nil, err
	}
	c.ClientAuth, c.ClientCAs = tls.VerifyClientCertIfGiven, x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate", files.ClientCAFile)
	}
	return c, nil
}
