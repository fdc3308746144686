-- What names a store for whoever fills it, so that one that begins anew is filled from the beginning.

CREATE TABLE IF NOT EXISTS `identity` (
  `id` UUID COMMENT 'Made with the store, and never changed'
)
ENGINE = MergeTree ORDER BY id
COMMENT 'The identity of this store: the group in which it reads the bus is named by it';

INSERT INTO `identity` SELECT generateUUIDv4() WHERE (SELECT count() FROM `identity`) = 0;
