package tokens

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// Signature algorithms; the type of the key alone decides which of them is accepted.
const (
	algRSA   = "RS256"
	algECDSA = "ES256"

	// maxTokenBytes bounds what is parsed.
	maxTokenBytes = 16 << 10
	// p256Bytes is the size of each half of an ES256 signature.
	p256Bytes = 32
)

var (
	errMalformed = errors.New("malformed token")
	errSignature = errors.New("invalid signature")
)

// Keys are the signing keys. PublicKey finds the key of a token by its id.
type Keys interface {
	SigningKey() (id string, key crypto.Signer)
	PublicKey(id string) (crypto.PublicKey, bool)
}

type header struct {
	Algorithm string          `json:"alg"`
	KeyID     string          `json:"kid"`
	Critical  json.RawMessage `json:"crit,omitempty"`
}

// algorithm is the only algorithm that a key may be used with.
func algorithm(key crypto.PublicKey) (string, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return algRSA, nil
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize == p256Bytes*8 {
			return algECDSA, nil
		}
	}
	return "", fmt.Errorf("key of type %T cannot sign tokens", key)
}

// sign makes the compact form of a token.
func sign(keys Keys, claims *claims) (string, error) {
	id, key := keys.SigningKey()
	alg, err := algorithm(key.Public())
	if err != nil {
		return "", err
	}
	head, err := json.Marshal(header{Algorithm: alg, KeyID: id})
	if err != nil {
		return "", fmt.Errorf("encode token header: %w", err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode token claims: %w", err)
	}
	signed := encode(head) + "." + encode(body)
	digest := sha256.Sum256([]byte(signed))
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	if alg == algECDSA {
		if signature, err = fixedSignature(signature); err != nil {
			return "", err
		}
	}
	return signed + "." + encode(signature), nil
}

// fixedSignature turns the ASN.1 form of an ECDSA signature into the two fixed-size numbers of a web signature.
func fixedSignature(der []byte) ([]byte, error) {
	var s struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &s); err != nil {
		return nil, fmt.Errorf("encode signature: %w", err)
	}
	out := make([]byte, 2*p256Bytes)
	s.R.FillBytes(out[:p256Bytes])
	s.S.FillBytes(out[p256Bytes:])
	return out, nil
}

// parts splits a token and decodes header and claims, without trusting either.
func parts(token string) (h header, c claims, err error) {
	if len(token) > maxTokenBytes {
		return h, c, errMalformed
	}
	p := strings.Split(token, ".")
	if len(p) != 3 {
		return h, c, errMalformed
	}
	head, err := decode(p[0])
	if err != nil {
		return h, c, errMalformed
	}
	body, err := decode(p[1])
	if err != nil {
		return h, c, errMalformed
	}
	if json.Unmarshal(head, &h) != nil || json.Unmarshal(body, &c) != nil {
		return h, c, errMalformed
	}
	return h, c, nil
}

// verify checks the signature of a token whose header is h.
func verify(keys Keys, token string, h header) error {
	key, ok := keys.PublicKey(h.KeyID)
	if !ok || len(bytes.TrimSpace(h.Critical)) > 0 {
		return errSignature
	}
	alg, err := algorithm(key)
	if err != nil || alg != h.Algorithm {
		return errSignature
	}
	end := strings.LastIndexByte(token, '.')
	signature, err := decode(token[end+1:])
	if err != nil {
		return errMalformed
	}
	digest := sha256.Sum256([]byte(token[:end]))
	switch key := key.(type) {
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) == nil {
			return nil
		}
	case *ecdsa.PublicKey:
		if len(signature) == 2*p256Bytes && ecdsa.Verify(key, digest[:],
			new(big.Int).SetBytes(signature[:p256Bytes]), new(big.Int).SetBytes(signature[p256Bytes:])) {
			return nil
		}
	}
	return errSignature
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func decode(s string) ([]byte, error) { return base64.RawURLEncoding.Strict().DecodeString(s) }
