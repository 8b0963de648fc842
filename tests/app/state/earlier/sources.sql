BEGIN TRANSACTION;
CREATE TABLE callbacks (
    job_id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,
    attempted REAL,
    status INTEGER,
    error TEXT,
    owner TEXT
);
INSERT INTO "callbacks" VALUES('eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','https://hooks.example.com/e','waiting',0,0.0,NULL,NULL,NULL,NULL);
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    name TEXT NOT NULL,
    profile TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    frames INTEGER NOT NULL DEFAULT 0,
    expected INTEGER,
    fraction REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    code TEXT,
    detail TEXT,
    owner TEXT,
    kept_bytes INTEGER NOT NULL DEFAULT 0,
    made_by TEXT
);
INSERT INTO "jobs" VALUES('cccccccccccccccccccccccccccccccc','done','c.mp4','p',10,'0000000000000000000000000000000000000000000000000000000000000000',1.0,100.0,110.0,12,12,1.0,1,0.0,NULL,NULL,NULL,999,'camera');
INSERT INTO "jobs" VALUES('dddddddddddddddddddddddddddddddd','failed','d.mp4','p',10,'0000000000000000000000000000000000000000000000000000000000000000',2.0,100.0,111.0,0,NULL,NULL,1,0.0,'invalid_video','broken',NULL,5,'camera');
INSERT INTO "jobs" VALUES('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','running','b.mp4','p',10,'0000000000000000000000000000000000000000000000000000000000000000',3.0,100.0,NULL,7,20,0.35,1,0.0,NULL,NULL,'33511534d3a346b3af5a9c7fbc79d620',0,'camera');
INSERT INTO "jobs" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','queued','a.mp4','p',10,'0000000000000000000000000000000000000000000000000000000000000000',4.0,NULL,NULL,0,NULL,NULL,0,0.0,NULL,NULL,NULL,0,'camera');
INSERT INTO "jobs" VALUES('eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','queued','e.mp4','p',10,'0000000000000000000000000000000000000000000000000000000000000000',5.0,NULL,NULL,0,NULL,NULL,0,0.0,NULL,NULL,NULL,0,'camera');
INSERT INTO "jobs" VALUES('ffffffffffffffffffffffffffffffff','queued','f.mp4','p',10,'0000000000000000000000000000000000000000000000000000000000000000',6.0,NULL,NULL,0,NULL,NULL,0,0.0,NULL,NULL,NULL,0,'camera');
INSERT INTO "jobs" VALUES('00000000000000000000000000000000','deleted','0.mp4','p',10,'0000000000000000000000000000000000000000000000000000000000000000',7.0,NULL,NULL,0,NULL,NULL,0,0.0,NULL,NULL,NULL,0,'camera');
CREATE TABLE sources (
    job_id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    bytes INTEGER NOT NULL DEFAULT 0,
    total INTEGER,
    etag TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    spent_s REAL NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,
    error TEXT,
    owner TEXT
);
INSERT INTO "sources" VALUES('ffffffffffffffffffffffffffffffff','https://media.example.com/f.mp4','waiting',0,NULL,NULL,0,0,0.0,0.0,NULL,NULL);
CREATE INDEX jobs_by_state ON jobs (state, created)
;
COMMIT;
