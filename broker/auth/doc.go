// Package auth decides who a client is and what it may do.
package auth
