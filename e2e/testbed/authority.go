package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority is one that no machine knows, and a certificate of it for loopback.
type authority struct {
	caFile, certFile, keyFile string
	pool                      *x509.CertPool
}

func (b *Bed) newAuthority() (*authority, error) {
	dir, err := b.Subdir("authority")
	if err != nil {
		return nil, err
	}
	a := &authority{caFile: filepath.Join(dir, "ca.pem"), certFile: filepath.Join(dir, "cert.pem"),
		keyFile: filepath.Join(dir, "key.pem"), pool: x509.NewCertPool()}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e authority"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caKey, err := issue(ca, ca, nil, a.caFile)
	if err != nil {
		return nil, err
	}
	server := &x509.Certificate{SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	key, err := issue(server, ca, caKey, a.certFile)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := writePEM(a.keyFile, "PRIVATE KEY", der); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(a.caFile)
	if err != nil {
		return nil, err
	}
	a.pool.AppendCertsFromPEM(text)
	return a, nil
}

// issue writes a certificate to a file, signed by its issuer's key, or by its own if that is nil, and returns its key.
func issue(c, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey, path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if issuerKey == nil {
		issuerKey = key
	}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, issuer, key.Public(), issuerKey)
	if err != nil {
		return nil, err
	}
	return key, writePEM(path, "CERTIFICATE", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
