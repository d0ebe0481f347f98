-- migrate:up
-- A foreign key costs about 25 microseconds a row, most of it under the collection's lock: six of
-- the seven milliseconds that writing a batch of 64 took. Those below are implied: a decision is
-- only written by whoever has read the generation under the lock, a representative or attribute
-- only in the transaction of its object's decision (whose key on object stays), and an embedding
-- in the space of a collection (whose key on model stays). `pixsift audit` checks them all.
ALTER TABLE decision DROP CONSTRAINT decision_collection_id_generation_fkey;
ALTER TABLE representative DROP CONSTRAINT representative_collection_id_generation_fkey;
ALTER TABLE representative DROP CONSTRAINT representative_object_id_fkey;
ALTER TABLE attribute DROP CONSTRAINT attribute_collection_id_fkey;
ALTER TABLE attribute DROP CONSTRAINT attribute_object_id_fkey;
ALTER TABLE embedding DROP CONSTRAINT embedding_space_id_fkey;

-- migrate:down
-- Forward only: contract in a later file.
