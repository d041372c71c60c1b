// Drives MQTT.js for the tests in mqttjs_test.go:
//
//	node mqttjs.mjs SCENARIO VERSION URL
//
// The environment may say how to log in (E2E_USER, E2E_PASSWORD) and whom to trust
// (E2E_CA, a file).
//
// Exit status 0: the scenario went as it must. Otherwise stderr says what did not.

import mqtt from 'mqtt'
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'

const [scenario, version, url] = process.argv.slice(2)
const patience = 120_000 // ms for a whole scenario
const protocolVersion = Number(version)

setTimeout(() => {
	console.error(`${scenario} is not done after ${patience} ms`)
	process.exit(1)
}, patience).unref()

const { E2E_USER: username, E2E_PASSWORD: password, E2E_CA: ca } = process.env
const login = { username, password, ...(ca && { ca: readFileSync(ca) }) }

function connect(clientId, options = {}) {
	return mqtt.connectAsync(url, {
		clientId: `${clientId} ${scenario} ${version}`,
		protocolVersion,
		protocolId: protocolVersion === 3 ? 'MQIsdp' : 'MQTT',
		reconnectPeriod: 10,
		...login,
		...options,
	})
}

// durable are the options of a session that outlives its connection.
const durable = { clean: false, properties: { sessionExpiryInterval: 1000 } }

// collect gathers what a client gets, as "topic payload qos", until there are n. show
// may make something shorter of a payload.
function collect(client, show = (payload) => payload) {
	const all = []
	let check = () => {}
	client.on('message', (topic, payload, packet) => {
		all.push(`${topic} ${show(payload, packet)} ${packet.qos}`)
		check()
	})
	return (n) => new Promise((resolve) => {
		check = () => { if (all.length >= n) resolve(all) }
		check()
	})
}

const topic = `${scenario}/${version}`

const scenarios = {
	async pubsub() {
		const sub = await connect('sub')
		const received = collect(sub)
		const want = []
		await sub.subscribeAsync(`${topic}/#`, { qos: 2 })
		const pub = await connect('pub')
		for (const qos of [0, 1, 2]) {
			for (let i = 0; i < 50; i++) {
				await pub.publishAsync(`${topic}/${qos}`, `${i}`, { qos })
				want.push(`${topic}/${qos} ${i} ${qos}`)
			}
		}
		assert.deepEqual(await received(want.length), want)
		await pub.endAsync()
		await sub.endAsync()
	},

	// Connections break while messages are under way; the library connects again by
	// itself and sends again what is not acknowledged.
	async reconnect() {
		const sub = await connect('sub', durable)
		const received = collect(sub)
		await sub.subscribeAsync(topic, { qos: 2 })
		const pub = await connect('pub', durable)
		const want = []
		const sent = []
		// Few, for what is sent again goes one by one, each when the one before is durable.
		for (let i = 0; i < 60; i++) {
			sent.push(pub.publishAsync(topic, `${i}`, { qos: 2 }))
			want.push(`${topic} ${i} 2`)
			if (i % 20 === 10) pub.stream.destroy()
			if (i % 20 === 19) await Promise.all(sent)
		}
		assert.deepEqual([...new Set(await received(want.length))].sort(), want.sort())
		await pub.endAsync()
		await sub.endAsync()
	},

	async offline() {
		const away = await connect('away', durable)
		await away.subscribeAsync(`${topic}/#`, { qos: 1 })
		await away.endAsync()
		const pub = await connect('pub')
		const want = []
		const sent = []
		for (let i = 0; i < 50; i++) {
			sent.push(pub.publishAsync(`${topic}/q`, `${i}`, { qos: 1 }))
			want.push(`${topic}/q ${i} 1`)
		}
		await Promise.all(sent)
		const back = mqtt.connect(url, { clientId: `away ${scenario} ${version}`, protocolVersion, protocolId: protocolVersion === 3 ? 'MQIsdp' : 'MQTT', ...login, ...durable })
		const received = collect(back) // before CONNACK: messages follow it at once
		const connack = await new Promise((resolve) => back.on('connect', resolve))
		if (protocolVersion > 3) assert.equal(connack.sessionPresent, true)
		assert.deepEqual(await received(want.length), want)
		await back.endAsync()
		await pub.endAsync()
	},

	async will() {
		const watch = await connect('watch')
		const received = collect(watch)
		await watch.subscribeAsync(`${topic}/will/#`, { qos: 1 })
		const will = (name) => ({ reconnectPeriod: 0, will: { topic: `${topic}/will/${name}`, payload: 'gone', qos: 1 } })
		const orderly = await connect('orderly', will('orderly'))
		await orderly.endAsync()
		const dying = await connect('dying', will('dying'))
		dying.stream.destroy()
		assert.deepEqual(await received(1), [`${topic}/will/dying gone 1`])
		await watch.endAsync()
	},

	// All that is done over each transport, as in transports_test.go.
	async transport() {
		const at = `${url.split(':')[0]}/${topic}`
		const sub = await connect(`sub ${at}`)
		const received = collect(sub, (payload) => payload.length)
		await sub.subscribeAsync(`${at}/#`, { qos: 2 })
		const pub = await connect(`pub ${at}`)
		const want = []
		for (const qos of [0, 1, 2]) {
			for (const size of [1, 200 * 1024]) {
				await pub.publishAsync(`${at}/data`, Buffer.alloc(size, 'x'), { qos })
				want.push(`${at}/data ${size} ${qos}`)
			}
		}
		await received(want.length)
		await pub.publishAsync(`kept/${at}`, 'kept', { qos: 1, retain: true })
		const late = await connect(`late ${at}`)
		const kept = collect(late, (_, packet) => packet.retain)
		await late.subscribeAsync(`kept/${at}`, { qos: 1 })
		assert.deepEqual(await kept(1), [`kept/${at} true 1`])

		const dying = await connect(`dying ${at}`, { reconnectPeriod: 0, will: { topic: `${at}/will`, payload: 'gone', qos: 1 } })
		dying.stream.destroy()
		want.push(`${at}/will 4 1`)
		assert.deepEqual(await received(want.length), want)

		const away = await connect(`away ${at}`, durable)
		await away.subscribeAsync(`away/${at}`, { qos: 1 })
		await away.endAsync()
		await pub.publishAsync(`away/${at}`, 'missed', { qos: 1 })
		const back = mqtt.connect(url, { clientId: `away ${at} ${scenario} ${version}`, protocolVersion, ...login, ...durable })
		const missed = collect(back)
		const connack = await new Promise((resolve) => back.on('connect', resolve))
		assert.equal(connack.sessionPresent, true)
		assert.deepEqual(await missed(1), [`away/${at} missed 1`])
		for (const c of [sub, pub, late, back]) await c.endAsync()
	},
}

await scenarios[scenario]()
