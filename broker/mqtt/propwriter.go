package mqtt

// propWriter appends properties to b, as far as they may stand in the packet
// it is for.
type propWriter struct {
	b  []byte
	in scope
}

func (w *propWriter) allows(id byte) bool { return properties[id].in&w.in != 0 }

func (w *propWriter) u8(id byte, v byte, present bool) {
	if present && w.allows(id) {
		w.b = append(w.b, id, v)
	}
}

func (w *propWriter) u16(id byte, v uint16, present bool) {
	if present && w.allows(id) {
		w.b = appendU16(append(w.b, id), v)
	}
}

func (w *propWriter) u32(id byte, v uint32, present bool) {
	if present && w.allows(id) {
		w.b = appendU32(append(w.b, id), v)
	}
}

func (w *propWriter) bytes(id byte, v []byte) {
	if v != nil && w.allows(id) {
		w.b = appendBytes(append(w.b, id), v)
	}
}

// appendPropertyList writes what of p may stand in s, in the order of the
// identifiers, user properties last, without a length.
func appendPropertyList(dst []byte, p *Properties, s scope) []byte {
	w := propWriter{b: dst, in: s}
	w.u8(propPayloadFormat, 1, p.PayloadIsUTF8)
	w.u32(propMessageExpiry, p.MessageExpirySeconds, p.HasMessageExpiry)
	w.bytes(propContentType, p.ContentType)
	w.bytes(propResponseTopic, p.ResponseTopic)
	w.bytes(propCorrelationData, p.CorrelationData)
	if p.SubscriptionID != 0 && s == inSubscribe {
		w.b = appendVarint(append(w.b, propSubscriptionID), int(p.SubscriptionID))
	}
	w.u32(propSessionExpiry, p.SessionExpirySeconds, p.HasSessionExpiry)
	w.bytes(propAssignedID, p.AssignedClientID)
	w.u16(propServerKeepAlive, p.ServerKeepAliveSeconds, p.HasServerKeepAlive)
	w.bytes(propAuthMethod, p.AuthMethod)
	w.bytes(propAuthData, p.AuthData)
	w.u8(propProblemInfo, 0, p.NoProblemInfo)
	w.u32(propWillDelay, p.WillDelaySeconds, p.WillDelaySeconds != 0)
	w.u8(propRequestResponse, 1, p.RequestResponseInfo)
	w.bytes(propResponseInfo, p.ResponseInfo)
	w.bytes(propServerReference, p.ServerReference)
	w.bytes(propReasonString, p.ReasonString)
	w.u16(propReceiveMax, p.ReceiveMax, p.ReceiveMax != 0)
	w.u16(propTopicAliasMax, p.TopicAliasMax, p.TopicAliasMax != 0)
	w.u8(propMaxQoS, byte(p.MaxQoS), p.HasMaxQoS && p.MaxQoS < 2)
	w.u8(propRetainAvailable, 0, p.RetainUnavailable)
	w.u32(propMaxPacketBytes, p.MaxPacketBytes, p.MaxPacketBytes != 0)
	w.u8(propWildcard, 0, p.WildcardUnavailable)
	w.u8(propSubIDAvailable, 0, p.SubIDUnavailable)
	w.u8(propShared, 0, p.SharedUnavailable)
	if w.allows(propUser) {
		for _, u := range p.User {
			w.b = appendBytes(append(w.b, propUser), u.Name)
			w.b = appendBytes(w.b, u.Value)
		}
	}
	return w.b
}

// appendProperties writes the property length and the properties.
func appendProperties(dst []byte, p *Properties, s scope) []byte {
	dst, at := openLength(dst)
	return closeLength(appendPropertyList(dst, p, s), at)
}

// appendReason writes a reason code and properties as the packets do that may
// leave out the end: the properties if there are none, then the reason code,
// too, if it is success (MQTT5 3.4.2.1, 3.14.2.1).
func appendReason(dst []byte, r Reason, p *Properties, s scope) []byte {
	short := len(dst)
	dst = appendProperties(append(dst, byte(r)), p, s)
	if len(dst) > short+2 {
		return dst
	}
	if r != Success {
		return dst[:short+1]
	}
	return dst[:short]
}
