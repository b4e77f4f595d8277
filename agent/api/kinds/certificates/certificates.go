// Package certificates is the kinds of certificates.k8s.io: CertificateSigningRequest with its approval, ClusterTrustBundle
// and PodCertificateRequest. Who may approve, sign or attest is asked by admission. Nothing signs yet; other signers can.
// All is pure functions but for the time of conditions, and safe for concurrent use.
// Test with `go test ./agent/api/kinds/certificates`.
package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Types of PEM blocks.
const (
	requestBlock     = "CERTIFICATE REQUEST"
	certificateBlock = "CERTIFICATE"
)

// Resources returns the kinds.
func Resources() []kinds.Resource {
	return []kinds.Resource{signingRequests(), trustBundles(), podRequests()}
}

func invalid(at *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(at, value, m))
	}
	return errs
}

// checkRequest says what is wrong with a request in PEM.
func checkRequest(text []byte) error {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != requestBlock {
		return errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	_, err := x509.ParseCertificateRequest(block.Bytes)
	return err
}

// checkChain says what is wrong with certificates in PEM.
func checkChain(text []byte) error {
	count := 0
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != certificateBlock {
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) != 0 {
			return errors.New("no PEM block headers are permitted")
		}
		found, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
		count++
	}
	if count == 0 {
		return errors.New("must contain at least one CERTIFICATE PEM block")
	}
	return nil
}
