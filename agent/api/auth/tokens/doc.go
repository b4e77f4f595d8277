// Package tokens issues and checks the bearer tokens of service accounts: JSON web tokens that are bound to the
// account and, where asked for, to a pod, node or secret, and that die with what they are bound to.
//
// [Issuer] makes them (it is also the serviceaccounts/token sub-resource, see [NewREST]), [Validator] checks them as an
// authenticator of the generic API server, [Discovery] serves the OpenID documents with which others can check
// them. Keys come from outside ([Keys]) and may rotate at any time.
//
// A signature is checked once and remembered (bounded by cachedTokens); what a token is bound to is looked up for
// every request, so that deleting the pod, account, node or secret ends it at once. Everything here is safe for
// concurrent use. Tokens are never logged.
package tokens
